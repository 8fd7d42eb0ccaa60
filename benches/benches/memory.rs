//! What a view costs in memory, and that a lookup costs none. Counts allocations instead of time, so this is a program
//! of its own: `cargo bench -p discovery-benches --bench memory`.

use std::hint::black_box;

use discovery::{Discovery, balance::LeastLoaded, mem::Mem};
use discovery_benches::{instance, service};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const INSTANCES: u64 = 10_000;
const LOOKUPS: u64 = 100_000;

fn main() {
    // `cargo test --benches` runs this as well; there is nothing to test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let discovery = Discovery::new(Mem::new());
        for n in 0..INSTANCES {
            discovery.register(instance(n)).permanent().await.expect("memory refuses nothing").detach();
        }

        let _profiler = dhat::Profiler::builder().testing().build();
        let before = dhat::HeapStats::get();
        let view = discovery.view(service()).await.expect("memory answers");
        let after = dhat::HeapStats::get();
        let bytes = after.curr_bytes - before.curr_bytes;
        println!("view of {INSTANCES}: {bytes} bytes, {} an instance", bytes as u64 / INSTANCES);

        let balancer = view.balance(LeastLoaded::new());
        balancer.ready().await.expect("there are instances");
        let key = instance(INSTANCES / 2).key().clone();
        let before = dhat::HeapStats::get();
        for _ in 0..LOOKUPS {
            black_box(view.read(|snapshot, freshness| (snapshot.len(), freshness.is_live())));
            black_box(view.get(&key));
            black_box(balancer.pick().map(|pick| pick.weight()).is_ok());
        }
        let allocations = dhat::HeapStats::get().total_blocks - before.total_blocks;
        println!("{LOOKUPS} lookups and picks: {allocations} allocations");
        assert_eq!(allocations, 0, "neither a lookup nor a pick may allocate");
    });
}
