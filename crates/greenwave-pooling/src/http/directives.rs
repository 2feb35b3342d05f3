//! The directives of `Cache-Control` (RFC 9111, section 5.2) and of `CDN-Cache-Control` (RFC 9213).
//! Knows nothing of what follows from them.

use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap};

/// Larger numbers of seconds count as this one (RFC 9111, section 1.2.2). 68 years.
const SECONDS_MAX: u64 = 1 << 31;

/// The directives of one message, in order. Names are compared without regard to case.
#[derive(Debug, Clone, Default)]
pub(super) struct Directives(Vec<Directive>);

#[derive(Debug, Clone)]
struct Directive {
    /// In lower case.
    name: String,
    value: Option<String>,
    /// White space beside the `=`, which the grammar does not allow.
    is_loose: bool,
    is_quoted: bool,
}

impl Directives {
    /// Those of `Cache-Control`. What is not of the grammar is passed over, the rest of the line is
    /// not.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Vec::new();
        for line in headers.get_all(CACHE_CONTROL) {
            for part in split_list(&String::from_utf8_lossy(line.as_bytes())) {
                directives.extend(Directive::parse(part));
            }
        }
        Self(directives)
    }

    /// Those of `CDN-Cache-Control`, where there are any: a dictionary of structured fields, to be
    /// ignored as a whole where it is malformed, or where a lifetime is no integer (RFC 9213,
    /// section 2.1).
    pub(super) fn of_cdn(headers: &HeaderMap) -> Option<Self> {
        let lines: Vec<_> = headers
            .get_all("cdn-cache-control")
            .iter()
            .map(|line| line.to_str().ok())
            .collect::<Option<_>>()?;
        let line = lines.join(", ");
        let mut directives = Vec::new();
        for part in split_list(&line) {
            // A parameter of a member means nothing here.
            let member = part.split(';').next().unwrap_or_default().trim_end();
            directives.push(Directive::parse(member).filter(Directive::is_structured)?);
        }
        (!directives.is_empty()).then_some(Self(directives))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|directive| directive.name == name)
    }

    /// Whether the directive is there without a list of fields that it is about.
    pub(super) fn has_bare(&self, name: &str) -> bool {
        self.0.iter().any(|directive| {
            directive.name == name && directive.value.as_ref().is_none_or(|value| !is_list_of_names(value))
        })
    }

    /// The fields that the directive is about, as in `no-cache="set-cookie"`.
    pub(super) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.0.iter().filter(move |directive| directive.name == name);
        let values = values.filter_map(|directive| directive.value.as_deref());
        values.filter(|value| is_list_of_names(value)).flat_map(|value| value.split(',')).map(str::trim)
    }

    /// The value of a directive that counts seconds, at most 2^31. Zero where it is no number, or
    /// where two say different things: what cannot be understood is stale (RFC 9111, section
    /// 4.2.1).
    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        let mut found = None;
        for directive in self.0.iter().filter(|directive| directive.name == name) {
            let seconds = directive.seconds().unwrap_or(0);
            if found.is_some_and(|found| found != seconds) {
                return Some(Duration::ZERO);
            }
            found = Some(seconds);
        }
        found.map(Duration::from_secs)
    }

    /// Whether the directive is there without a value that limits it, as `max-stale`.
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
        let is_loose = value.is_some_and(|value| name.ends_with(BLANKS) || value.starts_with(BLANKS));
        let name = name.trim_matches(BLANKS).to_ascii_lowercase();
        let value = value.map(|value| value.trim_matches(BLANKS));
        let is_quoted = value.is_some_and(|value| value.starts_with('"'));
        (!name.is_empty()).then(|| Self { name, value: value.map(unquoted), is_loose, is_quoted })
    }

    fn seconds(&self) -> Option<u64> {
        let value = self.value.as_ref().filter(|_| !self.is_loose)?;
        seconds(value)
    }

    /// Whether it is a member of a structured dictionary (RFC 9651, section 3.2) of the type that
    /// its name has.
    fn is_structured(&self) -> bool {
        let is_key = self.name.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
            && self.name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.*".contains(&c));
        let counts = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];
        let is_typed = !counts.contains(&self.name.as_str()) || (self.seconds().is_some() && !self.is_quoted);
        is_key && is_typed && !self.is_loose
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// A number of seconds, cut off at 2^31.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX))
}

/// The parts between commas that stand outside of quotes, without white space around them and
/// without empty ones.
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

/// What stands in double quotes, or the text itself.
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
