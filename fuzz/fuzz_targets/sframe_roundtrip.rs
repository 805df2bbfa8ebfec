//! Functions written into SFrame sections, and call frame information converted into them: see
//! `unwind_tests::fuzzing::sframe_roundtrip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::sframe_roundtrip(data));
