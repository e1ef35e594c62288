#![no_main]

libfuzzer_sys::fuzz_target!(
    // A panic of the Parquet decoder is caught by the library and must not end the process before. One that gets
    // out still does: libfuzzer-sys aborts on it.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| {
        blt_pipeline_fuzz::parquet_source(bytes);
    }
);
