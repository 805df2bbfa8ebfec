//! Arbitrary bytes as ARM exception handling tables: see `unwind_tests::fuzzing::ehabi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::ehabi(data));
