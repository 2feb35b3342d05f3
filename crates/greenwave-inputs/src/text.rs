//! Short forms of hashes and paths for messages and reports.

use std::path::Path;

/// Returns the first eight bytes of a hash as 16 hexadecimal digits.
#[must_use]
pub fn short_hash(hash: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    hash.iter().take(8).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Returns a path as text, cut after 60 characters.
#[must_use]
pub fn short_path(path: &Path) -> String {
    const SHOWN: usize = 60;
    let text = path.display().to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
