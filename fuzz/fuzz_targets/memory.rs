//! Memory that changes between reads and fails at random: see `unwind_tests::fuzzing::memory`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::memory(data));
