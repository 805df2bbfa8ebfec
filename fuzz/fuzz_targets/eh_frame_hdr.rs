//! Search tables, right and damaged: see `unwind_tests::fuzzing::eh_frame_hdr`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| unwind_tests::fuzzing::eh_frame_hdr(data));
