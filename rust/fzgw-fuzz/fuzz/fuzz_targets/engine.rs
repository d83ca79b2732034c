//! See `fzgw_fuzz::engine`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fzgw_fuzz::engine::run(data));
