//! Checks that an unfinished value is always valid and does not depend on chunks.
#![no_main]

use greenwave_streaming::PartialJson;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Below the depth limit of `serde_json`.
const DEPTH_MAX: usize = 100;

fuzz_target!(|data: &[u8]| {
    let mut whole = PartialJson::new(1 << 20, DEPTH_MAX);
    let outcome = format!("{:?}", whole.push(data));
    let mut partial = PartialJson::new(1 << 20, DEPTH_MAX);
    let mut last = Ok(());
    for byte in data {
        last = partial.push(std::slice::from_ref(byte));
        if let Some(text) = partial.text() {
            let parsed = serde_json::from_str::<Value>(text);
            // The grammar accepts numbers beyond the range of `f64`.
            let is_valid = parsed.as_ref().is_ok() || parsed.is_err_and(|error| error.to_string().contains("out of range"));
            assert!(is_valid, "{text:?}");
        }
        if last.is_err() {
            break;
        }
    }
    assert_eq!(format!("{last:?}"), outcome);
    assert_eq!(partial.text(), whole.text());
});
