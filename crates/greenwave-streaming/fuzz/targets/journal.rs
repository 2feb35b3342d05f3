//! Decodes any bytes as a journal record; encoding the result must yield the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| greenwave_streaming::conformance::check_journal_record(data));
