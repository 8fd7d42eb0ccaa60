//! `nsupdate` changes a zone, if it may.

use discovery_dns::ZoneConfig;
use discovery_testbed::NsUpdate;

use crate::{KEY, SECRET, ZONE, dig, dynamic, has_programs, local, nsupdate, signed_dig};

const ADD: &str = "add web.disco.test. 60 A 10.0.0.1";

#[tokio::test]
async fn changes_and_transfers_need_the_key() {
    if !has_programs() {
        return;
    }
    let authority = dynamic().await;
    let nsupdate = nsupdate(&authority);
    for (client, expected) in [
        (nsupdate.clone().without_key(), "REFUSED"),
        (nsupdate.clone().key(KEY, "d3Jvbmc="), "NOTAUTH(BADSIG)"),
        (nsupdate.clone().key("nobody", SECRET), "NOTAUTH(BADKEY)"),
        (nsupdate.clone().zone("elsewhere.test"), "NOTAUTH"),
    ] {
        for client in [client.clone(), client.tcp()] {
            let error = client.run("add web.elsewhere.test. 60 A 10.0.0.1").await.unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
    assert_eq!(authority.serial(ZONE), Some(1));
    let error = dig(&authority).transfer(ZONE).await.unwrap_err().to_string();
    assert!(error.contains("REFUSED"), "{error}");
    let error = dig(&authority).key(KEY, "d3Jvbmc=").transfer(ZONE).await.unwrap_err().to_string();
    assert!(error.contains("NOTAUTH"), "{error}");

    nsupdate.run(ADD).await.unwrap();
    nsupdate.clone().tcp().run("delete web.disco.test. A\nadd web.disco.test. 60 A 10.0.0.2").await.unwrap();
    let refused = nsupdate.run(&format!("prereq nxdomain web.disco.test.\n{ADD}")).await.unwrap_err();
    assert!(refused.to_string().contains("YXDOMAIN"), "{refused}");
    assert_eq!(authority.serial(ZONE), Some(3));
    assert_eq!(signed_dig(&authority).transfer(ZONE).await.unwrap().len(), 4);
    let changes = signed_dig(&authority).transfer_since(ZONE, 2).await.unwrap();
    let [_, _, removed, _, added, _] = &changes[..] else { panic!("{changes:?}") };
    assert!(removed.ends_with("A 10.0.0.1") && added.ends_with("A 10.0.0.2"), "{changes:?}");
}

#[tokio::test]
async fn without_keys_the_own_machine_may() {
    if !has_programs() {
        return;
    }
    let authority = local().zone(ZoneConfig::dynamic(ZONE)).start().await.unwrap();
    NsUpdate::to(authority.address(), ZONE).run(ADD).await.unwrap();
    assert_eq!(dig(&authority).transfer(ZONE).await.unwrap().len(), 4);

    // A listener that others can reach, too, is not for us alone.
    let open = discovery_dns::Authority::builder().listen("0.0.0.0:0".parse().unwrap());
    let open = open.zone(ZoneConfig::dynamic(ZONE)).start().await.unwrap();
    let here = (std::net::Ipv4Addr::LOCALHOST, open.address().port()).into();
    let error = NsUpdate::to(here, ZONE).run(ADD).await.unwrap_err().to_string();
    assert!(error.contains("REFUSED"), "{error}");
}

#[tokio::test]
async fn a_key_of_each_algorithm_will_do() {
    if !has_programs() {
        return;
    }
    for algorithm in ["hmac-sha384", "hmac-sha512"] {
        let key = format!("{algorithm}:{KEY}:{SECRET}");
        let authority =
            local().key(key.parse().unwrap()).zone(ZoneConfig::dynamic(ZONE)).start().await.unwrap();
        let dig = dig(&authority).option("-y").option(&key);
        assert_eq!(dig.transfer(ZONE).await.unwrap().len(), 3, "{algorithm}");
    }
}

#[tokio::test]
async fn a_zone_may_be_full() {
    if !has_programs() {
        return;
    }
    let zone = ZoneConfig::dynamic(ZONE).records_max(4);
    let authority = local().zone(zone).start().await.unwrap();
    let nsupdate = NsUpdate::to(authority.address(), ZONE);
    nsupdate.run(&format!("{ADD}\nadd web.disco.test. 60 A 10.0.0.2")).await.unwrap();
    let error = nsupdate.run("add web.disco.test. 60 A 10.0.0.3").await.unwrap_err().to_string();
    assert!(error.contains("REFUSED"), "{error}");
    nsupdate.run("delete web.disco.test. A 10.0.0.1\nadd web.disco.test. 60 A 10.0.0.3").await.unwrap();
}
