//! Decodes arbitrary bytes as objects of the object tier: a decoded value survives encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| greenwave_storage::conformance::check_stored_object(data));
