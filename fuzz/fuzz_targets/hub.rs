#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tensormill_tests::fuzz::hub(data));
