//! Checks that every splitter finds the same units in any bytes, however they are chunked.
#![no_main]

use greenwave_streaming::conformance::{characters_stay_whole, chunked, units};
use greenwave_streaming::{
    Cap, Delimited, Fences, Files, Json, Lines, Paragraphs, Sentences, Splitter, Sse,
};
use libfuzzer_sys::fuzz_target;

/// The first bytes select the splitter, its cap and the chunk sizes.
fuzz_target!(|data: &[u8]| {
    let Some((&[which, cap, ref sizes @ ..], text)) = data.split_first_chunk::<6>() else { return };
    let cap = 4 + usize::from(cap >> 1);
    let cap = if data[1] & 1 == 0 { Cap::split(cap) } else { Cap::error(cap) };
    let large = if cap.bytes_max() > 100 { Cap::default() } else { cap };
    match which % 9 {
        0 => check(|| Lines::new(large), text, sizes),
        1 => check(|| Delimited::new(b"\n\n", large), text, sizes),
        2 => check(|| Fences::new(large), text, sizes),
        3 => check(|| Files::new(large), text, sizes),
        4 => check(|| Json::new(large.bytes_max(), 5), text, sizes),
        5 => check(|| Sse::new(large.bytes_max()), text, sizes),
        6 => check(|| Paragraphs::new(large), text, sizes),
        7 => check(|| Sentences::new(large), text, sizes),
        _ => check(|| Delimited::new(b"aab", large), text, sizes),
    }
});

fn check<S: Splitter>(make: impl Fn() -> S, text: &[u8], sizes: &[u8]) {
    let mut sizes = sizes.iter().map(|size| usize::from(*size)).cycle();
    let whole = units(make(), [text]);
    let cut = units(make(), chunked(text, &mut || sizes.next().unwrap_or(1)));
    assert_eq!(format!("{cut:?}"), format!("{whole:?}"));
    characters_stay_whole(make, text);
}
