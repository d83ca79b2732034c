//! See `fzgw_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fzgw_fuzz::packet::run(data));
