//! The handle of a single `ZooKeeper` server, against the real server.

use discovery_testbed::{Role, ZooKeeper};

#[tokio::test]
async fn data_outlive_a_kill_and_a_stop() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let address = zk.address();
    assert_eq!(zk.role().await.unwrap(), Role::Standalone);
    assert_eq!(zk.cli().run(["create", "/kept", "some data"]).await.unwrap(), "Created /kept");

    zk.kill().unwrap();
    assert_eq!(zk.id(), None);
    assert!(zk.role().await.is_err());
    zk.restart().await.unwrap();
    assert_eq!(zk.cli().run(["get", "/kept"]).await.unwrap(), "some data");

    zk.stop().await.unwrap();
    assert!(zk.role().await.is_err());
    zk.restart().await.unwrap();
    assert_eq!(zk.cli().run(["get", "/kept"]).await.unwrap(), "some data");
    assert_eq!(zk.address(), address);
}
