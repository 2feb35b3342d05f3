//! Parses the directives of `Cache-Control` (RFC 9111, section 5.2) and `CDN-Cache-Control` (RFC
//! 9213).

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap};

/// Upper limit of all numbers of seconds (RFC 9111, section 1.2.2): 68 years.
const SECONDS_MAX: u64 = 1 << 31;

/// The directives of one message, in order. Names are compared without regard to case.
#[derive(Debug, Clone, Default)]
pub(super) struct Directives(Vec<Directive>);

#[derive(Debug, Clone)]
struct Directive {
    /// In lower case.
    name: String,
    value: Option<String>,
    /// Set if there is white space around the `=`, which the grammar does not allow.
    has_inner_space: bool,
    is_quoted: bool,
}

impl Directives {
    /// Parses `Cache-Control`. Malformed directives are skipped; the others of the line are not.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Vec::new();
        for line in headers.get_all(CACHE_CONTROL) {
            for part in split_list(&String::from_utf8_lossy(line.as_bytes())) {
                directives.extend(Directive::parse(part));
            }
        }
        Self(directives)
    }

    /// Parses `CDN-Cache-Control`. The field is a structured dictionary and is ignored as a whole
    /// if it is absent or malformed, or if a lifetime is not an integer (RFC 9213, section 2.1).
    pub(super) fn of_cdn(headers: &HeaderMap) -> Option<Self> {
        let lines: Vec<_> = headers
            .get_all("cdn-cache-control")
            .iter()
            .map(|line| line.to_str().ok())
            .collect::<Option<_>>()?;
        let line = lines.join(", ");
        let mut directives = Vec::new();
        for part in split_list(&line) {
            // Parameters of a member have no meaning here.
            let member = part.split(';').next().unwrap_or_default().trim_end();
            directives.push(Directive::parse(member).filter(Directive::is_structured)?);
        }
        (!directives.is_empty()).then_some(Self(directives))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|directive| directive.name == name)
    }

    /// Returns true if the directive is present without a list of field names.
    pub(super) fn has_bare(&self, name: &str) -> bool {
        self.0.iter().any(|directive| {
            directive.name == name && directive.value.as_ref().is_none_or(|value| !is_list_of_names(value))
        })
    }

    /// Returns the field names listed by a directive, as in `no-cache="set-cookie"`.
    pub(super) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.0.iter().filter(move |directive| directive.name == name);
        let values = values.filter_map(|directive| directive.value.as_deref());
        values.filter(|value| is_list_of_names(value)).flat_map(|value| value.split(',')).map(str::trim)
    }

    /// Returns the value of a directive in seconds, at most 2^31. Returns zero if the value is not
    /// a number or if two values differ, because an unintelligible lifetime makes a response stale
    /// (RFC 9111, section 4.2.1).
    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        let mut first = None;
        for directive in self.0.iter().filter(|directive| directive.name == name) {
            let seconds = directive.seconds().unwrap_or(0);
            if first.is_some_and(|first| first != seconds) {
                return Some(Duration::ZERO);
            }
            first = Some(seconds);
        }
        first.map(Duration::from_secs)
    }

    /// Returns true if the directive is present without a value, as in `max-stale`.
    pub(super) fn is_unlimited(&self, name: &str) -> bool {
        self.0.iter().any(|directive| directive.name == name && directive.value.is_none())
    }
}

impl Directive {
    fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let has_inner_space = value.is_some_and(|value| name.ends_with(BLANKS) || value.starts_with(BLANKS));
        let name = name.trim_matches(BLANKS).to_ascii_lowercase();
        let value = value.map(|value| value.trim_matches(BLANKS));
        let is_quoted = value.is_some_and(|value| value.starts_with('"'));
        (!name.is_empty()).then(|| Self { name, value: value.map(unquoted), has_inner_space, is_quoted })
    }

    fn seconds(&self) -> Option<u64> {
        let value = self.value.as_ref().filter(|_| !self.has_inner_space)?;
        seconds(value)
    }

    /// Returns true if the directive is a valid member of a structured dictionary (RFC 9651,
    /// section 3.2) and has the type that its name requires.
    fn is_structured(&self) -> bool {
        let is_key = self.name.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && self.name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.*".contains(&c));
        let counts = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];
        let is_typed = !counts.contains(&self.name.as_str()) || (self.seconds().is_some() && !self.is_quoted);
        is_key && is_typed && !self.has_inner_space
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Parses a number of seconds, cut to 2^31.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX))
}

/// Splits a line at its commas outside quotes. Returns the trimmed, non-empty parts.
pub(super) fn split_list(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = line.split(move |c: char| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match c {
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    });
    parts.map(|part| part.trim_matches(BLANKS)).filter(|part| !part.is_empty())
}

/// Returns the contents of double quotes, or the text itself.
fn unquoted(text: &str) -> String {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace('\\', ""),
        None => text.to_owned(),
    }
}

fn is_list_of_names(text: &str) -> bool {
    let is_name = |name: &str| http::HeaderName::from_bytes(name.trim().as_bytes()).is_ok();
    text.split(',').all(is_name)
}

#[cfg(test)]
mod tests;
