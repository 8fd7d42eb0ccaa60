//! Who may do what.

use discovery::{Error, ErrorKind, kv::Txn};
use discovery_testbed::Etcd;

use crate::common::{etcd, everything, key, kv};

async fn guarded() -> Option<Etcd> {
    Etcd::builder().unsynced().auth("me", "s3cret").start_or_skip().await
}

/// Why this handle is refused, whatever it tries.
async fn refusal(locator: &str) -> Error {
    let etcd = etcd(locator);
    let error = kv(&etcd).get(&key("a")).await.unwrap_err();
    let write = kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
    let watch = crate::common::Follower::start(&etcd, &everything()).await.err().unwrap();
    assert_eq!([write.kind(), watch.kind()], [error.kind(); 2], "{write} {watch}");
    assert_eq!(write.outcome(), discovery::Outcome::NotApplied);
    error
}

#[tokio::test]
async fn who_has_user_and_secret_is_let_in() {
    let Some(server) = guarded().await else { return };
    let etcd = etcd(&format!("me:s3cret@{}", server.address()));
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    assert!(kv(&etcd).get(&key("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let Some(server) = guarded().await else { return };
    let address = server.address();
    for (locator, part) in [
        (format!("me:wrong@{address}"), "does not accept user and secret"),
        (format!("you:s3cret@{address}"), "does not accept user and secret"),
        (address.to_string(), "etcd://user:secret@host"),
    ] {
        let error = refusal(&locator).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_role_is_for_some_keys() {
    let Some(server) = guarded().await else { return };
    let root = server.cli().login("root", "s3cret");
    for command in [
        &["role", "add", "reader"][..],
        &["role", "grant-permission", "reader", "read", "/cn/", "--prefix"],
        &["user", "add", "guest:s3cret"],
        &["user", "grant-role", "guest", "reader"],
    ] {
        root.run(command).await.unwrap();
    }
    let (me, guest) = (
        etcd(&format!("me:s3cret@{}", server.address())),
        etcd(&format!("guest:s3cret@{}", server.address())),
    );
    kv(&me).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    assert!(kv(&guest).get(&key("a")).await.unwrap().is_some());
    let error = kv(&guest).commit(Txn::new().put(&key("a"), "2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("grant a role"), "{error}");
    // Elsewhere nothing is for it, and nothing is broken by its asking.
    let elsewhere = crate::common::etcd_at(&format!("guest:s3cret@{}/other", server.address()));
    let error = kv(&elsewhere).scan(&everything()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = crate::common::Follower::start(&elsewhere, &everything()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(kv(&guest).get(&key("a")).await.unwrap().is_some());
}

/// As etcd's own clients see it: a server that lets anybody in lets us in, too.
#[tokio::test]
async fn a_user_is_no_obstacle_where_nobody_is_asked() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&format!("me:s3cret@{}", server.address()));
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
}
