//! Any stack, any rules, any registers: see `unwind_tests::fuzzing::walk`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::walk(data));
