//! The file of expected durations, by which several machines share the tests of a project.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Version of the file's format.
const VERSION: u32 = 1;

/// Expected durations of tests, by name.
///
/// As text it is JSON, `{"version": 1, "milliseconds": {"NAME": 12.5}}`, with the names in order,
/// so that files differ only in what has changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings(BTreeMap<String, Duration>);

/// The error of a text that is not a file of expected durations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimingsError {
    /// The text is not JSON of the expected form.
    #[error("invalid file of durations")]
    Json(#[from] serde_json::Error),
    /// The file has another version.
    #[error("invalid value `{0}` for `version`: expected {VERSION}")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    milliseconds: BTreeMap<String, f64>,
}

impl Timings {
    /// Creates a file from names and durations.
    pub fn new(durations: impl IntoIterator<Item = (String, Duration)>) -> Self {
        Self(durations.into_iter().collect())
    }

    /// Parses a file.
    ///
    /// # Errors
    /// [`TimingsError`] if it is not one. A negative or too large duration counts as unknown.
    pub fn parse(text: &str) -> Result<Self, TimingsError> {
        let File { version, milliseconds } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(TimingsError::Version(version));
        }
        let duration = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).ok();
        Ok(Self(milliseconds.into_iter().filter_map(|(name, ms)| Some((name, duration(ms)?))).collect()))
    }

    /// Returns the expected duration of a test.
    pub fn get(&self, test: &str) -> Option<Duration> {
        self.0.get(test).copied()
    }

    /// Returns the number of tests.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the file names no test.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the file as text, with durations in milliseconds, rounded to a tenth.
    pub fn to_json(&self) -> String {
        let ms = |duration: &Duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0;
        let milliseconds = self.0.iter().map(|(name, duration)| (name.clone(), ms(duration))).collect();
        let file = File { version: VERSION, milliseconds };
        serde_json::to_string_pretty(&file).expect("names are text and durations are finite") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let ms = Duration::from_millis;
        let timings = Timings::new([("b".to_owned(), ms(1500)), ("a \"x\"".to_owned(), ms(2))]);
        let text = "{\n  \"version\": 1,\n  \"milliseconds\": {\n    \"a \\\"x\\\"\": 2.0,\n    \"b\": 1500.0\n  }\n}\n";
        assert_eq!(timings.to_json(), text);
        assert_eq!(Timings::parse(text).unwrap(), timings);
    }

    #[test]
    fn other_texts_are_errors_and_odd_durations_are_unknown() {
        for text in [
            "",
            "[]",
            "{\"version\":2,\"milliseconds\":{}}",
            "{\"version\":1}",
            "{\"version\":1,\"milliseconds\":{\"a\":\"1\"}}",
        ] {
            assert!(Timings::parse(text).is_err(), "{text}");
        }
        let timings =
            Timings::parse("{\"version\":1,\"milliseconds\":{\"a\":-1,\"b\":1e300,\"c\":0}}").unwrap();
        assert_eq!(
            (timings.get("a"), timings.get("b"), timings.get("c")),
            (None, None, Some(Duration::ZERO))
        );
    }
}
