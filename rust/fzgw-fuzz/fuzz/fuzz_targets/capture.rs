//! See `fzgw_fuzz::capture`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fzgw_fuzz::capture::run(data));
