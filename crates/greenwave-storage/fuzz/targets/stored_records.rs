//! Any bytes as the records that stores write, of attempts, snapshots and pins: what is read would be written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The first byte may choose a kind, because no fuzzer guesses four bytes soon.
fuzz_target!(|data: &[u8]| {
    greenwave_storage::conformance::check_stored_record(data);
    let Some((kind, rest)) = data.split_first() else { return };
    let kind: &[u8] = if kind % 2 == 0 { b"GWA\x01" } else { b"GWS\x01" };
    greenwave_storage::conformance::check_stored_record(&[kind, rest].concat());
});
