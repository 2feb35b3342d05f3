//! The header that identifies the user to a server.

use std::ffi::OsString;
use std::fmt;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};

use crate::Error;

/// Name of the header of HTTP for tokens.
const AUTHORIZATION: &str = "authorization";
/// Maximum length of a token in bytes. Servers limit all headers together to 8 or 16 KiB.
const TOKEN_BYTES_MAX: u64 = 8 << 10;
/// Number of bytes at which the output of a program is too long.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// A header that is sent with every call. `Debug` output omits its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the header, such as `authorization` or `x-buildbuddy-api-key`.
    pub header: String,
    /// Value of the header. In `authorization`, a value without a space is sent as `Bearer VALUE`.
    pub token: Token,
}

/// Where the value of a header comes from.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Token {
    /// The value itself.
    Text(String),
    /// A program and its arguments. Its first line of output is the value. It runs when the client
    /// connects, and again when the server calls the value invalid, as it does when one expires.
    Command(Vec<OsString>),
}

impl Credentials {
    /// Sends a token in the header `authorization`.
    #[must_use]
    pub fn bearer(token: Token) -> Self {
        Self { header: AUTHORIZATION.to_owned(), token }
    }

    /// Checks what can be checked without running a program.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_name = self.header == self.header.to_ascii_lowercase() && !self.header.ends_with("-bin");
        if !is_name || AsciiMetadataKey::from_bytes(self.header.as_bytes()).is_err() {
            let value = format!("`{}`", self.header.escape_debug());
            let expected = "the name of a header in lower case, such as authorization";
            return Err(Error::InvalidOption { option: "header", value, expected });
        }
        let is_empty = match &self.token {
            Token::Text(text) => self.value(text).is_err(),
            Token::Command(words) => words.is_empty(),
        };
        if is_empty {
            let expected = "one line of visible characters, at most 8 KiB, or a command";
            return Err(Error::InvalidOption { option: "token", value: "(hidden)".to_owned(), expected });
        }
        Ok(())
    }

    /// Returns whether a second attempt may obtain another value.
    pub(crate) fn can_be_renewed(&self) -> bool {
        matches!(self.token, Token::Command(_))
    }

    /// Obtains the header.
    pub(crate) async fn obtain(&self) -> Result<(AsciiMetadataKey, AsciiMetadataValue), String> {
        let name = AsciiMetadataKey::from_bytes(self.header.as_bytes())
            .map_err(|_| "the name of the header is invalid".to_owned())?;
        let value = match &self.token {
            Token::Text(text) => self.value(text)?,
            Token::Command(words) => self.value(&first_line(words).await?)?,
        };
        Ok((name, value))
    }

    fn value(&self, token: &str) -> Result<AsciiMetadataValue, String> {
        let is_token = !token.is_empty()
            && token.len() as u64 <= TOKEN_BYTES_MAX
            && token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        // The token itself is not shown.
        let invalid = || "it is not one line of visible characters".to_owned();
        if !is_token {
            return Err(invalid());
        }
        let is_scheme_missing = self.header == AUTHORIZATION && !token.contains(' ');
        let text = if is_scheme_missing { format!("Bearer {token}") } else { token.to_owned() };
        let mut value = AsciiMetadataValue::try_from(text).map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::Command(words) => f.debug_tuple("Command").field(&words.first()).finish(),
        }
    }
}

/// Runs a program, which is killed if the future is dropped, and returns its first line of output.
async fn first_line(words: &[OsString]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let shown = program.display();
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut output).await;
        read.map_err(|error| format!("cannot read the output of `{shown}`: {error}"))?;
    }
    if output.len() as u64 == OUTPUT_BYTES_MAX {
        return Err(format!("`{shown}` printed {OUTPUT_BYTES_MAX} bytes or more"));
    }
    let status = child.wait().await.map_err(|error| format!("cannot wait for `{shown}`: {error}"))?;
    if !status.success() {
        return Err(format!("`{shown}` failed: {status}"));
    }
    let text = String::from_utf8(output).map_err(|_| format!("`{shown}` printed no text"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("`{shown}` printed nothing")),
    }
}
