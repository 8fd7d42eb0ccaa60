//! What a client and a server of the same zone have to agree on, beyond the messages themselves.

use std::time::{SystemTime, UNIX_EPOCH};

use hickory_proto::rr::SerialNumber;

/// The most bytes of a UDP message: they get through without being fragmented anywhere (DNS flag day 2020).
pub(crate) const UDP_MAX: u16 = 1232;

/// Code of the option "Update Lease" (RFC 9664).
pub(crate) const OPTION_LEASE: u16 = 2;

/// Code of the option by which a client says where it listens for NOTIFY: two bytes, a UDP port. From the range for
/// private use (RFC 6891, section 9); servers that do not know it ignore it.
pub(crate) const OPTION_NOTIFY: u16 = 65011;

/// Seconds since 1970: what signatures are dated by.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether one serial of a zone is behind another (RFC 1982).
pub(crate) fn is_newer(serial: u32, than: u32) -> bool {
    SerialNumber::new(serial) > SerialNumber::new(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_go_round() {
        assert!(is_newer(1, 0) && is_newer(0, u32::MAX) && is_newer(5, u32::MAX - 5));
        assert!(!is_newer(0, 0) && !is_newer(0, 1) && !is_newer(u32::MAX, 0));
        assert!(!is_newer(0, 1 << 31) && !is_newer(1 << 31, 0), "neither, half-way round");
    }
}
