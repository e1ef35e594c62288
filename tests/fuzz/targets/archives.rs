#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    blt_pipeline_fuzz::media::keep_panics(bytes, &blt_pipeline_fuzz::media::archives(bytes));
});
