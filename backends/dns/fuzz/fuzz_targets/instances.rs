#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| discovery_dns::fuzz::instances(data));
