//! Any sections, and damaged ones: see `unwind_tests::fuzzing::dwarf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::dwarf(data));
