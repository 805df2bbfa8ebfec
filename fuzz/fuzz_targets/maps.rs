//! Lists of mappings, of modules and of regions: see `unwind_tests::fuzzing::maps`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::maps(data));
