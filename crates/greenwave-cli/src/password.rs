//! Finds and masks the passwords in addresses.

use std::ops::Range;

/// Returns a text in which `***` stands for the passwords of addresses.
pub(crate) fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut end = 0;
    for password in passwords(text.as_bytes()) {
        shown.push_str(&text[end..password.start]);
        shown.push_str("***");
        end = password.end;
    }
    shown.push_str(&text[end..]);
    shown
}

/// Replaces the passwords of addresses by asterisks of the same number.
pub(crate) fn mask_passwords(text: &mut [u8]) {
    for password in passwords(text) {
        text[password].fill(b'*');
    }
}

/// Returns the positions of the passwords of addresses (`scheme://user:password@host`).
fn passwords(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(position) = find(&text[at..], b"://") {
        let start = at + position + 3;
        let is_end = |byte: &u8| matches!(byte, 0 | b'/' | b'?' | b'#' | b' ' | b'"' | b'\'' | b'`');
        let end = text[start..].iter().position(is_end).map_or(text.len(), |length| start + length);
        let authority = &text[start..end];
        if let Some(host) = authority.iter().rposition(|byte| *byte == b'@')
            && let Some(colon) = authority[..host].iter().position(|byte| *byte == b':')
        {
            found.push(start + colon + 1..start + host);
        }
        at = end;
    }
    found
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_masked() {
        let check = |text: &str, masked: &str| {
            let mut bytes = text.as_bytes().to_vec();
            mask_passwords(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), masked);
        };
        check("", "");
        check("redis://host:6379", "redis://host:6379");
        check("redis://:secret@host:6379/0", "redis://:******@host:6379/0");
        check("--set\0x=rediss://me:a:b@c@host\0y", "--set\0x=rediss://me:*****@host\0y");
        check("redis://me@host redis://me:pw@host", "redis://me@host redis://me:**@host");
        check("http://host/a:b@c", "http://host/a:b@c");
        check("://", "://");
    }

    #[test]
    fn passwords_in_messages_are_masked() {
        let message = "invalid value `redis://:geheim-ü@host:x` for `testing.remote`, a:b@c";
        assert_eq!(masked(message), "invalid value `redis://:***@host:x` for `testing.remote`, a:b@c");
        assert_eq!(masked("none"), "none");
    }
}
