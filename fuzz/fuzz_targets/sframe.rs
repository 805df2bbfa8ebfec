//! Any bytes as SFrame sections: see `unwind_tests::fuzzing::sframe`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::sframe(data));
