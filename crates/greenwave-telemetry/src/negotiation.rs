//! Chooses the format of a response by the `Accept` header ([RFC 9110, section 12.5.1][rfc]).
//!
//! [rfc]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1

use hyper::HeaderMap;
use hyper::header::ACCEPT;

use crate::exposition::TextFormat;

/// Format of the metrics in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The JSON object.
    Json,
    /// A text format of Prometheus.
    Text(TextFormat),
}

/// The formats, in the order of the server's preference.
const FORMATS: [Format; 3] =
    [Format::Json, Format::Text(TextFormat::OpenMetrics), Format::Text(TextFormat::Prometheus)];

/// Weight of a range without `q`, in thousandths.
const FULL_WEIGHT: u16 = 1000;

impl Format {
    /// Chooses the format with the highest weight. If weights are equal, the format that the header
    /// names more exactly is chosen.
    ///
    /// JSON is sent to clients that accept everything, send no header, or accept no format of the
    /// list. The standard allows any response to the latter.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<Range<'_>> =
            values.flat_map(|value| unquoted(value, ',')).filter_map(Range::parse).collect();
        let mut best = (Format::Json, (0, 0));
        for format in FORMATS {
            let preference = preference(&ranges, format);
            if preference > best.1 {
                best = (format, preference);
            }
        }
        best.0
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Text(TextFormat::OpenMetrics) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
            Format::Text(TextFormat::Prometheus) => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    fn media_type(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Format::Json => ("application", "json", None),
            Format::Text(TextFormat::OpenMetrics) => ("application", "openmetrics-text", Some("1.0.0")),
            Format::Text(TextFormat::Prometheus) => ("text", "plain", Some("0.0.4")),
        }
    }
}

/// Returns the weight of a format and the exactness of the range that sets it. The most exact range
/// counts, even if it forbids the format. A weight of 0 forbids, so it is returned as `(0, 0)`.
fn preference(ranges: &[Range<'_>], format: Format) -> (u16, u8) {
    let exactness = |range: &Range<'_>| range.exactness(format).map(|exactness| (exactness, range.weight));
    match ranges.iter().filter_map(exactness).max() {
        Some((exactness, weight)) if weight > 0 => (weight, exactness),
        _ => (0, 0),
    }
}

/// A media range with its weight.
#[derive(Debug, PartialEq, Eq)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    /// Weight in thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    /// Parses a range. Returns `None` if the text is not a range.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = unquoted(text, ';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, version: None, weight: FULL_WEIGHT };
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            if name.trim_end().eq_ignore_ascii_case("q") {
                range.weight = weight(value.trim_start())?;
            } else if name.trim_end().eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_start().trim_matches('"'));
            }
        }
        Some(range)
    }

    /// Returns how exactly the range names a format, from 1 for `*/*` to 4 for a version. Returns
    /// `None` if the range does not include it.
    fn exactness(&self, format: Format) -> Option<u8> {
        let (kind, subtype, version) = format.media_type();
        if (self.kind, self.subtype) == ("*", "*") {
            return Some(1);
        }
        if !self.kind.eq_ignore_ascii_case(kind) {
            return None;
        }
        if self.subtype == "*" {
            return Some(2);
        }
        if !self.subtype.eq_ignore_ascii_case(subtype) {
            return None;
        }
        match (self.version, version) {
            (None, _) => Some(3),
            (Some(wanted), Some(version)) => (wanted == version).then_some(4),
            (Some(_), None) => None,
        }
    }
}

/// Parses a weight: 0 to 1 with at most three decimals. Returns thousandths.
fn weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse::<u16>().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(FULL_WEIGHT),
        _ => None,
    }
}

/// Splits a text at a separator outside of quotation marks.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |letter: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match letter {
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            '"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        letter == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{ACCEPT, HeaderValue};

    use super::{Format, TextFormat};

    const JSON: Format = Format::Json;
    const OPEN: Format = Format::Text(TextFormat::OpenMetrics);
    const TEXT: Format = Format::Text(TextFormat::Prometheus);

    fn check(accept: &[&'static str], expected: Format) {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        assert_eq!(Format::negotiate(&headers), expected, "{accept:?}");
    }

    #[test]
    fn clients_without_a_wish_get_json() {
        for accept in ["*/*", "", "application/json", "application/*", "image/png", "rubbish", ";;,=,"] {
            check(&[accept], JSON);
        }
        check(&[], JSON);
        check(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], JSON);
        check(&["application/json, text/plain, */*"], JSON);
    }

    #[test]
    fn scrapers_get_the_format_they_prefer() {
        // What Prometheus 2.42 and 3.5 send.
        check(
            &["application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
               q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
            OPEN,
        );
        check(
            &["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
               application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
               escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"],
            OPEN,
        );
        check(&["text/plain;version=0.0.4;q=1,*/*;q=0.1"], TEXT);
        check(&["text/plain"], TEXT);
        check(&["text/*"], TEXT);
        check(&["TEXT/Plain; Version=\"0.0.4\""], TEXT);
        check(&["*/*", "text/plain"], TEXT);
    }

    #[test]
    fn weights_decide() {
        check(&["text/plain;q=0.3, application/json;q=0.2"], TEXT);
        check(&["text/plain;q=0.2, application/json;q=0.3"], JSON);
        check(&["text/plain;q=0.001, */*;q=0"], TEXT);
        check(&["application/json;q=0, */*"], OPEN);
        check(&["application/json;q=0, application/openmetrics-text;q=0, */*;q=0.1"], TEXT);
        check(&["text/plain ; q=0.9 , application/openmetrics-text;q=1.000"], OPEN);
    }

    #[test]
    fn unknown_versions_and_invalid_weights_do_not_count() {
        check(&["application/openmetrics-text;version=2.0.0, text/plain;q=0.1"], TEXT);
        check(&["text/plain;version=1.0.0"], JSON);
        for invalid in ["text/plain;q=2", "text/plain;q=0.1234", "text/plain;q=-1", "text/plain;q=1.5"] {
            check(&[invalid], JSON);
        }
        check(&["text/plain;note=\"a, b; q=0\""], TEXT);
    }
}
