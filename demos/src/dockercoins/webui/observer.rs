//! Looks at the store and the registry, and keeps the picture up to date.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use discovery::View;
use tokio::{sync::watch, time};

use super::{
    meter::Meter,
    picture::{Moment, Picture},
};
use crate::{
    dockercoins::{call, site::Site, store::Store},
    web::epoch_millis,
};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(250);

/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many seconds of the past it remembers, as many as the original.
const PAST: usize = 250;

/// The past, a second at a time; written by the observer, read by whoever opens a page.
pub(super) type Past = Arc<Mutex<VecDeque<Moment>>>;

#[derive(Debug)]
pub(super) struct Observer {
    view: View,
    store: Store,
    meter: Meter,
    picture: watch::Sender<Arc<Picture>>,
    past: Past,
}

impl Observer {
    pub(super) fn new(site: &Site, scalable: bool) -> anyhow::Result<Self> {
        let picture = Picture {
            project: site.project().to_string(),
            registry: site.registry().to_string(),
            trouble: Some("not read yet".into()),
            scalable,
            command: site.command(),
            ..Picture::default()
        };
        Ok(Self {
            view: site.all(),
            store: Store::new(site, call::client(PATIENCE)?),
            meter: Meter::default(),
            picture: watch::Sender::new(Arc::new(picture)),
            past: Past::default(),
        })
    }

    /// What there is to be seen, now and later.
    pub(super) fn picture(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.subscribe()
    }

    pub(super) fn past(&self) -> Past {
        self.past.clone()
    }

    /// Looks, for as long as it is polled.
    pub(super) async fn run<T>(mut self) -> T {
        let mut ticks = time::interval(PERIOD);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let picture = self.look().await;
            self.remember(&picture);
            self.picture.send_replace(Arc::new(picture));
        }
    }

    async fn look(&mut self) -> Picture {
        let mut picture = Picture::clone(&self.picture.borrow());
        let read = time::timeout(PATIENCE, self.store.read(self.meter.seen())).await;
        match read.unwrap_or_else(|_| Err(anyhow::anyhow!("the store does not answer"))) {
            Ok(reading) => {
                self.meter.take_in(&reading);
                picture.read(&reading, &self.meter);
            }
            Err(error) => picture.trouble = Some(format!("{error:#}")),
        }
        self.view.read(|snapshot, freshness| {
            picture.meet(snapshot, &self.meter);
            let since = || epoch_millis(SystemTime::now() - freshness.since().elapsed());
            picture.stale = (!freshness.is_live()).then(since);
        });
        picture
    }

    fn remember(&self, picture: &Picture) {
        let Picture { now: at, rate, ceiling, .. } = *picture;
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back begins anew.
        if past.back().is_some_and(|last| last.at > at) {
            past.clear();
        }
        if picture.trouble.is_none() && past.back().is_none_or(|last| at / 1000 > last.at / 1000) {
            past.push_back(Moment { at, rate, ceiling });
            if past.len() > PAST {
                past.pop_front();
            }
        }
    }
}
