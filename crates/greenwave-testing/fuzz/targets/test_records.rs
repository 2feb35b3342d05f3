//! Decodes arbitrary bytes as the records of tests: results, dependencies and lists of traces in
//! the cache, which encode to equal records, and up-to-date records.
#![no_main]

use std::path::Path;

use greenwave_testing::conformance::{check_record, check_up_to_date_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check_record(data);
    check_up_to_date_record(Path::new("/proc/self"), data);
});
