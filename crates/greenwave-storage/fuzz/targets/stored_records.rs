//! Decodes arbitrary bytes as the records that stores write (attempts, snapshots and pins): decoded
//! records encode to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The first byte selects a kind, because a fuzzer cannot quickly guess four bytes.
fuzz_target!(|data: &[u8]| {
    greenwave_storage::conformance::check_stored_record(data);
    let Some((kind, rest)) = data.split_first() else { return };
    let kind: &[u8] = if kind % 2 == 0 { b"GWA\x02" } else { b"GWS\x01" };
    greenwave_storage::conformance::check_stored_record(&[kind, rest].concat());
});
