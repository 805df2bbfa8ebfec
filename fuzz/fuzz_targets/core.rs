//! Any bytes as a core file, and files made of segments and notes: see `unwind_tests::fuzzing::core`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::core(data));
