//! Any bytes as a record of the journal: what is read would be written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| greenwave_streaming::conformance::journal_record(data));
