//! Compares JSON values with `serde_json`.
#![no_main]

use greenwave_streaming::Json;
use greenwave_streaming::conformance::{chunked, units};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The first byte selects the chunk size. The values must match up to `serde_json`'s first error.
fuzz_target!(|data: &[u8]| {
    let Some((size, text)) = data.split_first() else { return };
    let expected: Vec<Value> =
        serde_json::Deserializer::from_slice(text).into_iter::<Value>().map_while(Result::ok).collect();
    let (found, _) = units(Json::default(), chunked(text, &mut || usize::from(*size)));
    let parsed: Vec<Value> =
        found.iter().map_while(|unit| serde_json::from_slice(&unit.bytes).ok()).collect();
    assert!(parsed.starts_with(&expected), "{parsed:?} {expected:?}");
});
