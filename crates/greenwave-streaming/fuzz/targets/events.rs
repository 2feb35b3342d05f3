//! Compares server-sent events with a model that follows the text of the standard.
#![no_main]

use greenwave_streaming::Sse;
use greenwave_streaming::conformance::{chunked, units};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/sse/standard.rs"]
mod standard;

/// The first byte selects the chunk size.
fuzz_target!(|data: &[u8]| {
    let Some((size, text)) = data.split_first() else { return };
    // The model does not decode labels that are not UTF-8.
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (found, error) = units(Sse::default(), chunked(text.as_bytes(), &mut || usize::from(*size)));
    assert!(error.is_none());
    let found: Vec<_> = found
        .into_iter()
        .map(|unit| {
            let (event, id) = (unit.event.unwrap_or_default(), unit.id.unwrap_or_default());
            (event.into_bytes(), id.into_bytes(), unit.bytes.to_vec())
        })
        .collect();
    assert_eq!(found, standard::events(text.as_bytes()));
});
