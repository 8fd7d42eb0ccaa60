//! The command line.

use crate::demo::run;

#[tokio::test]
async fn what_is_wrong_is_named_with_what_to_do() {
    for (args, code, parts) in [
        (&["rng", "--backend", "mem"][..], 2, &["one process", "-- dockercoins demo`"][..]),
        (&["rng", "--parallel", "0"], 2, &["--parallel", "1.."]),
        (&["worker", "--project", "a/b"], 2, &["--project", "one label"]),
        (&["worker", "--rng-delay", "1s"], 2, &["--rng-delay"]),
        (&["worker", "--hold", "0s"], 2, &["--hold", "100ms to 1h"]),
        (&["worker", "--timeout", "0s"], 2, &["--timeout", "100ms to 1h"]),
        (&["worker", "--grace", "1000years"], 2, &["--grace", "0s to 1h"]),
        (&["rng", "--rng-delay", "2h"], 2, &["--rng-delay", "0s to 1h"]),
        (&["rng", "--drain", "1000000years"], 2, &["--drain", "0s to 1h"]),
        (&["redis", "--url", "redis://:s@h"], 2, &["--url", "password"]),
        (&["redis", "--url", "http://h"], 2, &["--url", "redis://"]),
        (&["demo", "--redis", "h", "--journal", "x"], 2, &["--redis", "--journal"]),
        (&["demo", "--port", "0", "--journal", "/nowhere/x"], 1, &["--journal", "/nowhere/x"]),
        (&[], 2, &["demo", "hasher", "webui"]),
    ] {
        let output = run(&[&["dockercoins"], args].concat()).await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {log}");
        for part in parts {
            assert!(log.contains(part), "{args:?}: {part:?} is not in {log}");
        }
        assert!(!log.contains(":s@"), "{log}");
    }
}
