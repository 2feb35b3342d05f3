//! Compares line endings with those of a byte-by-byte search.

use proptest::prelude::*;

use super::{LineEnds, find_end};

proptest! {
    /// For any window and any start offset.
    #[test]
    fn all_ends_are_found(window in "[a-c\\n\\r\u{e9}]{0,40}[a-c]{0,90}[a-c\\n\\r]{0,80}", from in 0_usize..200) {
        let window = window.as_bytes();
        let from = from.min(window.len());
        let is_end = |i: &usize| matches!(window[*i], b'\n' | b'\r');
        let expected: Vec<usize> = (from..window.len()).filter(is_end).collect();
        prop_assert_eq!(find_end(window, from), expected.first().copied());
        prop_assert_eq!(LineEnds::new(window, from).collect::<Vec<_>>(), expected);
    }
}
