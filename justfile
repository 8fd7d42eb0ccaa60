# Everything, as CI does it.
test:
    scripts/test

# The quick round while writing: no servers needed.
quick:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo test -p discovery --all-features

# One test, again and again: what is flaky is broken.
again package test times="20":
    for n in $(seq {{times}}); do cargo test -p {{package}} --all-features -- {{test}} || exit 1; done

# The conformance tables, after a deliberate change.
bless:
    DISCOVERY_BLESS=1 cargo test --workspace --all-features conformance
    scripts/conformance-table

# Beside the raw clients.
bench:
    cargo bench -p discovery-benches

# Licences, bans and sources of all dependencies, and known advisories.
deny:
    cargo deny check
