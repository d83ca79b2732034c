//! See `fzgw_fuzz::icmp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fzgw_fuzz::icmp::run(data));
