//! Expressions of any operations: see `unwind_tests::fuzzing::expression`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::expression(data));
