//! etcd ends leases whose holders live, or would like to.

use std::time::Duration;

use discovery::conformance::stage::{BRIEF, eventually};
use discovery_testbed::Etcd;
use etcd_client::PutOptions;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::stage::{self, cleared};

/// Revokes all leases but those with more seconds to go.
async fn revoke_all(server: &Etcd, seconds: i64) -> usize {
    let mut stranger = stage::stranger(server).await;
    let mut revoked = 0;
    for lease in stranger.leases().await.unwrap().leases() {
        let granted = stranger.lease_time_to_live(lease.id(), None).await.unwrap().granted_ttl();
        if granted <= seconds {
            stranger.lease_revoke(lease.id()).await.unwrap();
            revoked += 1;
        }
    }
    revoked
}

#[tokio::test]
async fn a_lease_that_was_ended_is_replaced() {
    let ttl = Duration::from_secs(8);
    let Some((server, _proxy, mut stage)) = stage::behind_a_line(ttl).await else { return };
    assert_eq!(revoke_all(&server, 8).await, 1, "one lease for all registrations");
    stage.recovered([0, 0]).await;
    // The owner was there all the time, and so it saw the truth like everybody.
    assert_eq!(stage.owner().history().departures(), stage.witness().history().departures());
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_lease_that_ended_during_a_cut_is_replaced() {
    let ttl = Duration::from_secs(8);
    let Some((server, proxy, mut stage)) = stage::behind_a_line(ttl).await else { return };
    proxy.refuse().await;
    revoke_all(&server, 8).await;
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_thousand_registrations_come_back_with_their_latest_data() {
    let ttl = Duration::from_secs(8);
    let Some((server, proxy, mut stage)) = stage::behind_a_line(ttl).await else { return };
    stage.owner_mut().populate(1000..2000).await;
    stage.recovered([0, 0]).await;
    proxy.refuse().await;
    assert_eq!(revoke_all(&server, 8).await, 6, "200 registrations a lease");
    // The latest data are those that were asked for while nothing was registered.
    tokio::join!(stage.owner().update_all(), proxy.pass());
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    cleared(stage, &[server]).await;
}

/// Writing under a lease costs the server more the more keys it has, and may starve its renewal; so there are several.
#[tokio::test]
async fn five_thousand_registrations_live_under_load() {
    const CROWD: u64 = 5000;
    let Some((server, mut stage)) = stage::on_a_server(BRIEF).await else { return };
    stage.owner_mut().populate(1000..1000 + CROWD).await;
    let mut stranger = stage::stranger(&server).await;
    let leases = stranger.leases().await.unwrap().leases().len();
    assert_eq!(leases, 1 + 26, "the witness's, and one for each 200 of the owner's");

    // For some lives of the leases, the server has as much to do as it can.
    let until = Instant::now() + 4 * BRIEF;
    let load = async {
        let lease = stranger.lease_grant(60, None).await.unwrap().id();
        let writes = stream::iter(0_u64..).take_while(|_| std::future::ready(Instant::now() < until));
        let write = |n: u64| {
            let mut client = stranger.clone();
            async move {
                let options = PutOptions::new().with_lease(lease);
                client.put(format!("/load/{}", n % 200), "x".repeat(200), Some(options)).await.unwrap();
            }
        };
        writes.map(write).buffer_unordered(256).count().await
    };
    let written = load.await;
    eprintln!("{written} writes meanwhile");
    stage.assert_nobody_left();
    let truth = stage.wanted();
    eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    stranger.delete("/load/", Some(etcd_client::DeleteOptions::new().with_prefix())).await.unwrap();
    for lease in stranger.leases().await.unwrap().leases() {
        let granted = stranger.lease_time_to_live(lease.id(), None).await.unwrap().granted_ttl();
        if granted == 60 {
            stranger.lease_revoke(lease.id()).await.unwrap();
        }
    }
    drop(stranger);
    cleared(stage, &[server]).await;
}

/// A process that dies without a word is gone after its lease, and not before.
#[tokio::test]
async fn who_is_cut_off_for_good_is_gone_after_the_lease() {
    let Some((_server, proxy, stage)) = stage::behind_a_line(BRIEF).await else { return };
    proxy.black_hole().await;
    let start = Instant::now();
    eventually("the owner is gone", async || {
        let owned = stage.owner().registrations().iter();
        let left = owned.filter(|one| stage.witness().sees(one.key())).count();
        (left > 0).then(|| format!("{left} are left"))
    })
    .await;
    let lived = start.elapsed();
    // Renewed every second: up to two thirds of its time may be over when the line dies. The server rounds 2.5 s up to
    // 3 s, and looks at its leases every half second.
    assert!(lived >= Duration::from_secs(1) && lived < Duration::from_secs(6), "{lived:?}");
}
