//! Tables compiled from any source: see `unwind_tests::fuzzing::compile`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::compile(data));
