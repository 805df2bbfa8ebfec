//! Arbitrary bytes as compiled tables, and functions written into one: see `unwind_tests::fuzzing::table`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::table(data));
