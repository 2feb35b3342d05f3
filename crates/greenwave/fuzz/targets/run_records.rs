//! Decodes arbitrary bytes as the records of runs: green features, attempts, merges that are being
//! written, and receipts. A decoded record encodes to an equal one.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    greenwave::conformance::check_run_record(Path::new("/proc/self/fdinfo"), data);
});
