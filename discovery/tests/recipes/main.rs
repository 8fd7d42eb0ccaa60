//! Recipes under paused time, in all kinds of trouble: what each promises holds, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod barrier;
mod barrier_rounds;
mod costs;
mod election;
mod fence;
mod group;
mod group_departures;
mod group_late;
mod group_schedules;
mod lock;
mod lock_trouble;
mod resource;
mod schedules;
mod session;
mod support;
