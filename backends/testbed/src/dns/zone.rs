//! The content of a zone as a file.

/// A zone and what it holds when its server is started with nothing.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    /// Without the last dot.
    pub(super) name: String,
    /// Lines of a zone file.
    pub(super) records: String,
    pub(super) serial: u32,
}

impl Zone {
    /// The zone as a file. Its SOA names `responsible`, by which a test can tell one content from another.
    ///
    /// A secondary asks after a second, the shortest time that there is; so a test that waits for it waits no longer.
    pub(super) fn file(&self, responsible: &str) -> String {
        let Self { name, records, serial } = self;
        format!(
            "$ORIGIN {name}.\n\
             $TTL 60\n\
             @ SOA ns {responsible} {serial} 1 1 604800 1\n\
             @ NS ns\n\
             ns A 127.0.0.1\n\
             {records}\n"
        )
    }
}
