//! JSON values against those that `serde_json` finds. Unaware of what stands in them.
#![no_main]

use greenwave_streaming::Json;
use greenwave_streaming::conformance::{chunked, units};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The first byte chooses the size of chunks. As long as `serde_json` finds values, they are ours.
fuzz_target!(|data: &[u8]| {
    let Some((size, text)) = data.split_first() else { return };
    let expected: Vec<Value> =
        serde_json::Deserializer::from_slice(text).into_iter::<Value>().map_while(Result::ok).collect();
    let (found, _) = units(Json::default(), chunked(text, &mut || usize::from(*size)));
    let parsed: Vec<Value> =
        found.iter().map_while(|unit| serde_json::from_slice(&unit.bytes).ok()).collect();
    assert!(parsed.starts_with(&expected), "{parsed:?} {expected:?}");
});
