//! Asking a target how it is.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time;

use super::{ANSWER, BREATH, Target};
use crate::simple::{
    machine::{Instance, Signal, State},
    process::Process,
};

/// How many times as often a target is asked that is not running.
const EAGER: u32 = 20;

/// The longest pause until such a one is asked again, however seldom others are: what is due for it does not wait for hours.
const LONGEST: Duration = Duration::from_millis(500);

/// The pause until one is asked once more that was not well: what stays is noticed soon, and one bad answer is none.
const SECOND: Duration = Duration::from_millis(50);

/// What came of asking it.
#[derive(Debug)]
pub(super) enum Answer {
    Well,
    NotReady,
    Unwell(String),
    /// None in time.
    Silent(String),
    /// None in time, for the second time in a row.
    Hung(String),
    Absent(String),
}

impl Target {
    /// Asks it how it is, again and again.
    pub(in crate::simple) async fn ask(self: Arc<Self>) {
        let Some(instance) = self.instance.get() else { return };
        let Ok(mut standing) = instance.follow() else { return };
        let mut places = self.view.clone();
        // Whether it has been looked for among the orphans since it was absent.
        let mut looked = false;
        let mut was_silent = false;
        loop {
            let answer = match self.answer().await {
                Answer::Silent(why) if was_silent => Answer::Hung(why),
                answer => answer,
            };
            was_silent = matches!(answer, Answer::Silent(_) | Answer::Hung(_));
            if matches!(answer, Answer::Absent(_)) {
                looked = false;
            } else if !looked && *self.leads.borrow() {
                looked = true;
                self.adopt().await;
                if !self.has_process() {
                    tracing::info!("{} answers, but is no process of ours", self.address);
                }
            }
            self.tell(instance, answer);
            let state = standing.borrow_and_update().state;
            let pause = pause(state, self.context.pace.poll_interval);
            let turned = standing.wait_for(|standing| standing.state != state);
            let moved = async {
                let changed = match &mut places {
                    Some(view) => view.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = time::sleep(pause) => {}
                standing = turned => if standing.is_err() { return },
                () = moved => {}
            }
            time::sleep(BREATH).await;
        }
    }

    /// Signals what came of asking.
    pub(super) fn tell(&self, instance: &Instance, answer: Answer) {
        // Old news by the time that its action has ended.
        if instance.is_acting() {
            return;
        }
        let lives = self.process().as_ref().is_some_and(Process::is_alive);
        let state = self.state();
        let (signal, trouble) = match answer {
            Answer::Well => (Signal::Running, None),
            Answer::NotReady => (Signal::Pending, None),
            Answer::Absent(why) if !lives => (Signal::Down, Some(why)),
            // It does not listen, but it is there; while it starts or ends that is as it should be.
            Answer::Absent(_) if !matches!(state, State::Running | State::Pending | State::Error) => return,
            // The second bad one in a row. Who does not look after it only looks.
            Answer::Hung(why) if state == State::Error && *self.leads.borrow() => (Signal::Hang, Some(why)),
            Answer::Unwell(why) | Answer::Silent(why) | Answer::Absent(why)
                if state == State::Error && *self.leads.borrow() =>
            {
                (Signal::Again, Some(why))
            }
            Answer::Unwell(why) | Answer::Silent(why) | Answer::Hung(why) | Answer::Absent(why) => {
                (Signal::Error, Some(why))
            }
        };
        if let Some(trouble) = trouble
            && instance.can_receive(signal)
        {
            self.note(trouble);
        }
        // All may be over.
        let _ = instance.signal(signal);
    }

    async fn answer(&self) -> Answer {
        let urls = self.urls();
        let answers = join_all(urls.iter().map(|url| self.answer_of(url))).await;
        // A registration outlives its process for a while: the best one counts.
        let rank = |answer: &Answer| match answer {
            Answer::Well => 0,
            Answer::NotReady => 1,
            Answer::Unwell(_) | Answer::Silent(_) | Answer::Hung(_) => 2,
            Answer::Absent(_) => 3,
        };
        let best = answers.into_iter().min_by_key(rank);
        best.unwrap_or_else(|| Answer::Absent("nobody is registered".into()))
    }

    async fn answer_of(&self, url: &str) -> Answer {
        let [least, most] = ANSWER;
        let limit = self.context.pace.poll_interval.clamp(least, most);
        match self.context.http.get(url).timeout(limit).send().await {
            Ok(response) => match response.status().as_u16() {
                200 => Answer::Well,
                503 => Answer::NotReady,
                status => Answer::Unwell(format!("it answers with status {status}")),
            },
            Err(error) if error.is_timeout() => {
                Answer::Silent(format!("it does not answer within {limit:?}"))
            }
            Err(error) if error.is_connect() => Answer::Absent("it cannot be connected to".into()),
            Err(_) => Answer::Absent("it broke off the connection".into()),
        }
    }
}

/// How long to wait until it is asked again.
fn pause(state: State, interval: Duration) -> Duration {
    match state {
        State::Running => interval,
        State::Error => SECOND,
        _ => (interval / EAGER).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_run_is_asked_often_whatever_the_interval() {
        for (interval, pauses) in
            [(1000, [1000, 50, 50]), (9000, [9000, 450, 50]), (3_600_000, [3_600_000, 500, 50])]
        {
            let interval = Duration::from_millis(interval);
            let states = [State::Running, State::Provisioning, State::Error];
            let found = states.map(|state| pause(state, interval).as_millis());
            assert_eq!(found, pauses, "{interval:?}");
        }
    }
}
