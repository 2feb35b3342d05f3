//! Replaces secrets in texts that are stored and shown: values of environment variables that hold
//! credentials, and texts that have the form of a credential.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::RwLock;

/// The text that replaces a secret.
const MASKED: &str = "[masked]";

/// Minimum length of a variable's value that counts as a secret, in bytes. Shorter values would
/// match ordinary words.
const VALUE_BYTES_MIN: usize = 8;

/// Words in the names of variables that hold credentials.
const SECRET_WORDS: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"];

/// Prefixes of well-known tokens, with the minimum length of what follows and whether it may
/// contain `-` and `_`.
///
/// Sources: the token formats that the providers document, as collected by the rules of gitleaks
/// (<https://github.com/gitleaks/gitleaks>).
const TOKENS: [(&str, usize, bool); 34] = [
    ("sk-", 20, true),
    ("sk_live_", 16, true),
    ("sk_test_", 16, true),
    ("rk_live_", 16, true),
    ("ghp_", 30, false),
    ("gho_", 30, false),
    ("ghu_", 30, false),
    ("ghs_", 30, false),
    ("ghr_", 30, false),
    ("github_pat_", 30, true),
    ("glpat-", 16, true),
    ("xoxb-", 16, true),
    ("xoxp-", 16, true),
    ("xapp-", 16, true),
    ("AKIA", 16, false),
    ("ASIA", 16, false),
    ("AIza", 35, true),
    ("npm_", 30, false),
    ("pypi-", 32, true),
    ("hf_", 30, false),
    ("dop_v1_", 32, false),
    ("eyJ", 40, true),
    ("xoxa-", 16, true),
    ("xoxs-", 16, true),
    ("gsk_", 30, false),
    ("xai-", 40, false),
    ("pplx-", 30, false),
    ("r8_", 30, false),
    ("shpat_", 30, false),
    ("SG.", 40, true),
    ("ya29.", 30, true),
    ("whsec_", 24, false),
    ("lin_api_", 30, false),
    ("AGE-SECRET-KEY-1", 50, false),
];

/// Words that precede a credential in headers and settings.
const SCHEMES: [&str; 3] = ["Bearer ", "bearer ", "Basic "];

/// Minimum length of a credential after such a word, in bytes.
const SCHEME_BYTES_MIN: usize = 12;

/// Replaces secrets in texts. Clones share the values that are added later.
#[derive(Clone, Default)]
pub(crate) struct Mask {
    /// Secret values, the longest first.
    values: Vec<String>,
    /// Values that were added later.
    added: AddedSecrets,
}

/// Secret values that become known during a run.
#[derive(Clone, Default)]
pub(crate) struct AddedSecrets(Arc<RwLock<Vec<String>>>);

impl AddedSecrets {
    /// Adds a value, unless it is so short that it would match ordinary words.
    pub(crate) fn add(&self, value: &str) {
        let mut values = self.0.write();
        if value.len() >= VALUE_BYTES_MIN && !values.iter().any(|other| other == value) {
            values.push(value.to_owned());
        }
    }
}

impl std::fmt::Debug for AddedSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AddedSecrets").field("values", &self.0.read().len()).finish()
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mask").field("values", &self.values.len()).finish()
    }
}

impl Mask {
    /// Creates a mask for the values of variables whose names look like those of credentials.
    pub(crate) fn new<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let secret = variables.into_iter().filter(|(name, value)| is_secret(name, value));
        // A value of several lines is masked line by line, as programs print it.
        let lines = secret.flat_map(|(_, value)| value.lines().map(str::trim));
        let mut values: Vec<String> =
            lines.filter(|line| line.len() >= VALUE_BYTES_MIN).map(str::to_owned).collect();
        values.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
        values.dedup();
        Self { values, added: AddedSecrets::default() }
    }

    /// Replaces the values of these secrets as well.
    #[must_use]
    pub(crate) fn with(self, added: AddedSecrets) -> Self {
        Self { added, ..self }
    }

    /// Returns a text with all secrets replaced.
    pub(crate) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(text);
        for value in self.values.iter().chain(self.added.0.read().iter()) {
            if masked.contains(value.as_str()) {
                masked = Cow::Owned(masked.replace(value.as_str(), MASKED));
            }
        }
        let mut spans = tokens(&masked);
        spans.extend(private_keys(&masked));
        spans.extend(url_passwords(&masked));
        spans.sort_unstable_by_key(|span| span.start);
        if spans.is_empty() {
            return masked;
        }
        let mut result = String::with_capacity(masked.len());
        let mut at = 0;
        for span in spans.into_iter().filter(|span| span.start < span.end) {
            if span.start >= at {
                result.push_str(&masked[at..span.start]);
                result.push_str(MASKED);
            }
            at = at.max(span.end);
        }
        result.push_str(&masked[at..]);
        Cow::Owned(result)
    }
}

/// Returns whether a text has a part in the form of a credential.
pub(crate) fn has_secret(text: &str) -> bool {
    matches!(Mask::default().apply(text), Cow::Owned(_))
}

pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // `KEYBOARD` and `SSH_AUTH_SOCK` are not credentials, and paths of key files are no secrets.
    let has_word = name.split('_').any(|part| {
        SECRET_WORDS
            .iter()
            .any(|word| part == *word || part == format!("{word}S") || *word != "KEY" && part.contains(word))
            || part == "APIKEY"
    });
    has_word && value.len() >= VALUE_BYTES_MIN && !value.starts_with('/')
}

/// Returns the spans of tokens that are recognised by their form.
fn tokens(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    for (prefix, length_min, is_dashed) in TOKENS {
        for (start, _) in text.match_indices(prefix) {
            if text[..start].bytes().next_back().is_some_and(is_word) {
                continue;
            }
            let rest = &text.as_bytes()[start + prefix.len()..];
            let is_part = |byte: &u8| {
                byte.is_ascii_alphanumeric() || is_dashed && (*byte == b'-' || *byte == b'_' || *byte == b'.')
            };
            let length = rest.iter().take_while(|byte| is_part(byte)).count();
            // A token is random, so it has a digit. `sk-some-long-css-class-name` has none.
            if length >= length_min && rest[..length].iter().any(u8::is_ascii_digit) {
                spans.push(start..start + prefix.len() + length);
            }
        }
    }
    for scheme in SCHEMES {
        for (start, _) in text.match_indices(scheme) {
            let from = start + scheme.len();
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
            let length = text.as_bytes()[from..].iter().take_while(|byte| is_part(byte)).count();
            let has_digit = text.as_bytes()[from..from + length].iter().any(u8::is_ascii_digit);
            if length >= SCHEME_BYTES_MIN && has_digit {
                spans.push(from..from + length);
            }
        }
    }
    spans
}

/// Returns the spans of private keys in PEM form. A key without its end extends to the end of the
/// text, which may have been cut.
fn private_keys(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(begin) = text[at..].find("-----BEGIN ").map(|begin| at + begin) {
        let line = text[begin..].lines().next().unwrap_or_default();
        at = begin + "-----BEGIN ".len();
        if !line.contains("PRIVATE KEY") {
            continue;
        }
        let end = text[at..].find("-----END ").map_or(text.len(), |end| {
            let end = at + end;
            end + text[end..].find('\n').unwrap_or(text.len() - end)
        });
        spans.push(begin..end);
        at = end;
    }
    spans
}

/// Returns the spans of passwords in URLs (RFC 3986, section 3.2.1): `scheme://user:password@host`.
fn url_passwords(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    for (at, separator) in text.match_indices("://") {
        let from = at + separator.len();
        let is_end = |c: char| c.is_whitespace() || c.is_control() || "/?#\"'`<>".contains(c);
        let authority = text[from..].split(is_end).next().unwrap_or_default();
        let Some((user, _)) = authority.rsplit_once('@') else { continue };
        if let Some((name, password)) = user.split_once(':')
            && !password.is_empty()
        {
            let start = from + name.len() + 1;
            spans.push(start..start + password.len());
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_the_form_of_a_credential_are_masked() {
        let hex = "0123456789abcdef0123456789abcdef";
        let table = [
            (format!("key sk-ant-api03-{hex}, used"), "key [masked], used".to_owned()),
            (format!("ghp_{hex}abcd"), "[masked]".to_owned()),
            (format!("(github_pat_11AB_{hex})"), "([masked])".to_owned()),
            ("AKIAIOSFODNN7EXAMPLE".to_owned(), "[masked]".to_owned()),
            (format!("Authorization: Bearer {hex}\n"), "Authorization: Bearer [masked]\n".to_owned()),
            (format!("AIzaSy{hex}x"), "[masked]".to_owned()),
            (format!("a xoxb-1234-{hex} b"), "a [masked] b".to_owned()),
            (
                "x\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\ny".to_owned(),
                "x\n[masked]\ny".to_owned(),
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIE".to_owned(), "[masked]".to_owned()),
            ("postgres://app:s3cr:et@db:5432/x".to_owned(), "postgres://app:[masked]@db:5432/x".to_owned()),
            (format!("see https://x:{hex}@git.example/a.git, ok"), {
                "see https://x:[masked]@git.example/a.git, ok".to_owned()
            }),
            (format!("gsk_{hex}"), "[masked]".to_owned()),
            (format!("two: ghp_{hex}abcd ghp_{hex}efgh"), "two: [masked] [masked]".to_owned()),
        ];
        for (text, expected) in table {
            assert_eq!(Mask::default().apply(&text), expected, "{text}");
        }
    }

    #[test]
    fn ordinary_texts_are_unchanged() {
        for text in [
            "",
            "the bearer of bad news",
            "Bearer token is missing",
            "task-sk-12345678901234567890123",
            "class=\"sk-folding-cube-with-a-long-name\"",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "ghp_short1",
            "AKIAlowercase",
            "commit 0123456789abcdef0123456789abcdef01234567",
            "ünïcödé sk-",
            "https://example.com:8080/a@b:c http://user@host://x:y",
        ] {
            assert_eq!(Mask::default().apply(text), text);
        }
    }

    #[test]
    fn values_of_secret_variables_are_masked() {
        let mask = Mask::new([
            ("ANTHROPIC_API_KEY", "plain-looking value"),
            ("DB_PASSWORD", "hunter2hunter2"),
            ("DB_PASSWORD_LONG", "hunter2hunter2hunter2"),
            ("my_auth_token", "tokentoken"),
            ("SHORT_KEY", "short"),
            ("SSH_KEY_PATH", "/keys/id_ed25519"),
            ("KEYBOARD", "querty-layout"),
            ("HOME", "/opt/somewhere"),
            ("SIGNING_KEY", "first line of it\nsecond line of it\n"),
        ]);
        let table = [
            ("a plain-looking value b", "a [masked] b"),
            ("hunter2hunter2hunter2 hunter2hunter2", "[masked] [masked]"),
            ("tokentokentokentoken", "[masked][masked]"),
            (
                "a short /keys/id_ed25519 querty-layout /opt/somewhere",
                "a short /keys/id_ed25519 querty-layout /opt/somewhere",
            ),
            ("> second line of it", "> [masked]"),
        ];
        for (text, expected) in table {
            assert_eq!(mask.apply(text), expected, "{text}");
        }
        assert!(!format!("{mask:?}").contains("hunter2"), "secrets are not in debug output");
    }

    #[test]
    fn values_that_are_added_later_are_masked() {
        let added = AddedSecrets::default();
        let mask = Mask::new([]).with(added.clone());
        assert_eq!(mask.apply("key-from-a-program"), "key-from-a-program");
        added.add("key-from-a-program");
        added.add("short");
        assert_eq!(mask.clone().apply("a key-from-a-program, short"), "a [masked], short");
        assert!(has_secret("--key=sk-ant-api03-0123456789abcdef0123") && !has_secret("pass show openai"));
    }
}
