//! Formats numbers, durations and untrusted text for people.

use std::time::Duration;

/// Returns a count with its noun, which takes an `s` unless the count is 1.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("{count} {noun}") } else { format!("{count} {noun}s") }
}

/// Returns a duration with the units that matter: `850 us`, `56 ms`, `19.6 s`, `4 min 10 s`, `3 h 5
/// min`, `12 days`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_secs_f64() {
        exact if exact < 0.001 => format!("{:.0} us", exact * 1e6),
        exact if exact < 1.0 => format!("{:.0} ms", exact * 1e3),
        exact if exact < 100.0 => format!("{exact:.1} s"),
        _ if seconds < 7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if seconds < 172_800 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Returns a size with its decimal unit: `512 B`, `3.1 kB`, `200.0 MB`, `1.0 GB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes as f64 {
        exact if exact < 1e3 => format!("{bytes} B"),
        exact if exact < 1e6 => format!("{:.1} kB", exact / 1e3),
        exact if exact < 1e9 => format!("{:.1} MB", exact / 1e6),
        exact => format!("{:.1} GB", exact / 1e9),
    }
}

/// Returns a text with a replacement character for each control character, so that names cannot
/// change the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// Returns names in backquotes, separated by commas.
pub(crate) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_units_that_matter() {
        let check = |millis: u64, expected: &str| {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        };
        assert_eq!(duration(Duration::from_micros(850)), "850 us");
        check(56, "56 ms");
        check(999, "999 ms");
        check(19_640, "19.6 s");
        check(250_000, "4 min 10 s");
        check(11_100_000, "3 h 5 min");
        check(12 * 86_400_000, "12 days");
    }

    #[test]
    fn a_size_has_the_unit_that_matters() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(3_100, "3.1 kB");
        check(200_000_000, "200.0 MB");
        check(1_000_000_000, "1.0 GB");
        check(u64::MAX, "18446744073.7 GB");
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\x1b[31m\tb\n"), "a\u{fffd}[31m\u{fffd}b\u{fffd}");
    }
}
