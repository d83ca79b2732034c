//! See `fzgw_fuzz::fragments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fzgw_fuzz::fragments::run(data));
