//! The token that requests need.

use std::path::Path;

use greenwave_dir::read_regular_text;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Uri};

use crate::error::CliError;
use crate::random_token::random_token;

/// Minimum length of a token, in bytes.
const BYTES_MIN: usize = 16;
/// Maximum length of a token, in bytes.
const BYTES_MAX: usize = 256;

/// A token, of characters that need no encoding in a URL.
pub(super) struct Token {
    text: String,
    /// Whether the token is new, so that nobody knows it yet.
    is_new: bool,
}

impl Token {
    /// Reads the token in a file, or creates a random one.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = file else { return Ok(Self { text: random_token()?, is_new: true }) };
        let io = |source| CliError::Io { operation: "read", path: path.to_owned(), source };
        let text = read_regular_text(path, BYTES_MAX as u64 + 2).map_err(io)?;
        let text = text.trim_end().to_owned();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        if !is_plain || !(BYTES_MIN..=BYTES_MAX).contains(&text.len()) {
            return Err(CliError::Token { path: path.to_owned() });
        }
        Ok(Self { text, is_new: false })
    }

    /// Returns an address with the token, unless the user knows it already.
    pub(super) fn url(&self, address: &str) -> String {
        if self.is_new { format!("{address}?token={}", self.text) } else { address.to_owned() }
    }

    /// Returns whether a request has the token, as `Authorization: Bearer TOKEN` or as the
    /// parameter `token`.
    pub(super) fn is_in(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let header =
            headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let parameters = uri.query().unwrap_or_default().split('&');
        let given = header.or_else(|| parameters.filter_map(|it| it.strip_prefix("token=")).next());
        given.is_some_and(|given| is_same(&self.text, given))
    }
}

/// Compares two texts in a time that depends on their lengths only.
fn is_same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_accepted_in_the_header_and_in_the_address_only() {
        let token = Token { text: "0123456789abcdef".to_owned(), is_new: false };
        let check = |uri: &str, header: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, header.parse().expect("a header"));
            }
            token.is_in(&uri.parse().expect("a path"), &headers)
        };
        assert!(check("/mcp?token=0123456789abcdef", None));
        assert!(check("/mcp?a=b&token=0123456789abcdef", None));
        assert!(check("/mcp", Some("Bearer 0123456789abcdef")));
        for uri in ["/mcp", "/mcp?token=", "/mcp?token=0123456789abcdeF", "/mcp?token=0123456789abcde"] {
            assert!(!check(uri, None), "{uri}");
        }
        for header in ["Bearer ", "Bearer 0", "0123456789abcdef", "Basic 0123456789abcdef"] {
            assert!(!check("/mcp", Some(header)), "{header}");
        }
        assert!(!check("/mcp?token=0123456789abcdef", Some("Bearer 0")), "the header counts");
    }

    #[test]
    fn only_the_address_with_a_new_token_has_it() {
        let token = |is_new| Token { text: "secret".to_owned(), is_new };
        assert_eq!(token(true).url("http://x/mcp"), "http://x/mcp?token=secret");
        assert_eq!(token(false).url("http://x/mcp"), "http://x/mcp");
    }
}
