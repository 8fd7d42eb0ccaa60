//! Being the one who looks after a target.

use std::{net::IpAddr, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use discovery::ServiceName;
use sha2::{Digest, Sha256};
use tokio::time;

use super::{Context, Target};
use crate::{listen::hostname, simple::config::Address};

/// How long to wait before standing for election again, behind a refusal.
const NEXT_CAMPAIGN: Duration = Duration::from_secs(1);

/// How many characters of a URL are left in its label.
const READABLE: usize = 40;

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
        match &self.address {
            Address::Service(name) => {
                ServiceName::from_labels(["simple", "service"].into_iter().chain(name.labels()))
            }
            Address::Url(url) => ServiceName::from_labels(["simple", "url", &label(url)]),
        }
    }
}

/// A URL as a label. What is on this machine only is something else on another one.
fn label(url: &str) -> String {
    let url = url.to_ascii_lowercase();
    let host =
        reqwest::Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    let machine = if is_here { hostname() } else { String::new() };
    let hash = HEXLOWER.encode(&Sha256::digest(format!("{machine} {url}"))[..8]);
    // For people, who look into the registry.
    let text = url.trim_start_matches("http://").chars().take(READABLE);
    let text: String = text.map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{}-{hash}", text.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_url_has_a_label_of_its_own() {
        let long = "http://cart-service-primary.production.eu-west-1.internal.example.com";
        let labels = [
            "http://a.b",
            "http://a-b",
            "http://[::1]:80/x",
            &format!("{long}:8081"),
            &format!("{long}:8082"),
        ]
        .map(label);
        for (index, one) in labels.iter().enumerate() {
            assert!(ServiceName::from_labels([one]).is_ok(), "{one}");
            assert!(labels[..index].iter().all(|other| other != one), "{one}");
        }
        assert_eq!(label("http://a.b"), label("http://A.B"));
    }
}
