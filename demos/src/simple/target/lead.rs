//! Being the one who looks after a target.

use std::{sync::Arc, time::Duration};

use discovery::ServiceName;
use tokio::time;

use super::{Context, Target};
use crate::simple::config::Address;

/// How long to wait before standing for election again, behind a refusal.
const NEXT_CAMPAIGN: Duration = Duration::from_secs(1);

impl Target {
    /// Stands for election, again and again, and resigns at the end.
    pub(in crate::simple) async fn lead(self: Arc<Self>) -> discovery::Result<()> {
        let Context { registry, ttl, label, leaving, .. } = &*self.context;
        let election = registry.discovery.election(&self.seat()?)?.ttl(*ttl);
        loop {
            let campaign = tokio::select! {
                campaign = election.campaign(label.clone()) => campaign,
                () = leaving.cancelled() => return Ok(()),
            };
            let leadership = match campaign {
                Ok(leadership) => leadership,
                Err(error) => {
                    tracing::warn!("nobody can be elected to look after {}: {error}", self.address);
                    time::sleep(NEXT_CAMPAIGN).await;
                    continue;
                }
            };
            self.leads.send_replace(true);
            // Whatever another one gave up is for us to try.
            self.provision();
            self.context.bell.send_replace(());
            let lost = tokio::select! {
                why = leadership.fence().lost() => why,
                () = leaving.cancelled() => return leadership.resign().await,
            };
            self.leads.send_replace(false);
            tracing::warn!("no longer elected to look after {}: {lost}", self.address);
        }
    }

    /// Where its supervisors are elected.
    fn seat(&self) -> discovery::Result<ServiceName> {
        let labels = match &self.address {
            Address::Service(name) => {
                ["simple", "service"].into_iter().chain(name.labels()).map(str::to_owned).collect()
            }
            Address::Url(url) => {
                let text = url.trim_start_matches("http://").to_ascii_lowercase();
                let label: String =
                    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
                vec!["simple".to_owned(), "url".to_owned(), label.trim_matches('-').to_owned()]
            }
        };
        ServiceName::from_labels(labels)
    }
}
