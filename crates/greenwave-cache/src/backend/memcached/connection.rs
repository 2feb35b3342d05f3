//! One connection to a memcached server, in its text protocol. Nothing that a server sends takes
//! more memory than the values that were asked for may have.
//!
//! The protocol: <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// The port of a server whose address has none.
const PORT: u16 = 11211;
/// Maximum length of a line, in bytes. A key has at most 250, an error has a sentence.
const LINE_BYTES_MAX: u64 = 2048;

/// Why a command failed. The connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the server answered: {0}")]
    Refused(String),
    #[error("the server sent {0}")]
    Invalid(String),
}

/// A connection on which no answer is outstanding.
pub(super) struct Connection(BufReader<Pin<Box<dyn Stream>>>);

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

impl Connection {
    /// Connects to `HOST`, `HOST:PORT` or `unix://PATH`.
    pub(super) async fn open(address: &str) -> Result<Self, CommandError> {
        let stream: Pin<Box<dyn Stream>> = match address.strip_prefix("unix://") {
            #[cfg(unix)]
            Some(path) => Box::pin(UnixStream::connect(path).await?),
            #[cfg(not(unix))]
            Some(_) => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
            None => {
                let stream = match has_port(address) {
                    true => TcpStream::connect(address).await?,
                    false => TcpStream::connect((address.trim_matches(['[', ']']), PORT)).await?,
                };
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
        };
        Ok(Self(BufReader::new(stream)))
    }

    /// Returns the values of those keys that the server has, in its order. The limits are those of
    /// a value and of all together, in bytes.
    pub(super) async fn get(
        &mut self,
        keys: &[String],
        (value_bytes_max, answer_bytes_max): (u64, u64),
    ) -> Result<Vec<(String, Bytes)>, CommandError> {
        self.send(&[b"get ", keys.join(" ").as_bytes(), b"\r\n"]).await?;
        let (mut found, mut left) = (Vec::new(), answer_bytes_max);
        loop {
            let line = self.line().await?;
            if line == "END" {
                return Ok(found);
            }
            let (key, len) = value_head(&line).ok_or_else(|| answer(&line))?;
            let max = value_bytes_max.min(left);
            if len > max {
                return Err(CommandError::Invalid(format!("a value of {len} bytes, more than {max}")));
            }
            left -= len;
            if found.len() == keys.len() || !keys.iter().any(|name| name == key) {
                return Err(CommandError::Invalid("a value that was not asked for".to_owned()));
            }
            let (key, value) = (key.to_owned(), self.value(len).await?);
            found.push((key, value));
        }
    }

    /// Stores a value. `seconds` is its time to live, and `None` has it stay as long as there is
    /// room.
    pub(super) async fn set(
        &mut self,
        key: &str,
        value: &[u8],
        seconds: Option<i64>,
    ) -> Result<(), CommandError> {
        // The server takes a negative time for one that has passed, and 0 for none.
        let head = format!("set {key} 0 {} {}\r\n", seconds.unwrap_or(0), value.len());
        self.send(&[head.as_bytes(), value, b"\r\n"]).await?;
        self.expect(&["STORED"]).await
    }

    /// Removes a value, if the server has it.
    pub(super) async fn delete(&mut self, key: &str) -> Result<(), CommandError> {
        self.send(&[b"delete ", key.as_bytes(), b"\r\n"]).await?;
        self.expect(&["DELETED", "NOT_FOUND"]).await
    }

    async fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if !self.0.buffer().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server sent more than its answer"));
        }
        self.0.write_all(&parts.concat()).await?;
        self.0.flush().await
    }

    async fn expect(&mut self, accepted: &[&str]) -> Result<(), CommandError> {
        let line = self.line().await?;
        if accepted.contains(&line.as_str()) { Ok(()) } else { Err(answer(&line)) }
    }

    /// Reads a line, without its end.
    async fn line(&mut self) -> Result<String, CommandError> {
        let mut line = Vec::new();
        (&mut self.0).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Err(match line.len() as u64 {
                LINE_BYTES_MAX => {
                    CommandError::Invalid(format!("a line of more than {LINE_BYTES_MAX} bytes"))
                }
                _ => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            });
        };
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Reads a value with the line end after it. Memory grows with the bytes that have arrived, not
    /// with the announced length.
    async fn value(&mut self, len: u64) -> Result<Bytes, CommandError> {
        let mut value = Vec::new();
        (&mut self.0).take(len + 2).read_to_end(&mut value).await?;
        if value.len() as u64 != len + 2 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if !value.ends_with(b"\r\n") {
            return Err(CommandError::Invalid("a value that is longer than announced".to_owned()));
        }
        value.truncate(value.len() - 2);
        Ok(value.into())
    }
}

fn has_port(address: &str) -> bool {
    match address.rsplit_once(':') {
        // More colons are those of an address of version 6.
        Some((host, port)) => port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')),
        None => false,
    }
}

/// Returns the key and the length of the value that a line announces.
fn value_head(line: &str) -> Option<(&str, u64)> {
    let mut words = line.strip_prefix("VALUE ")?.split(' ');
    let (key, _flags, len) = (words.next()?, words.next()?, words.next()?);
    Some((key, len.parse().ok()?))
}

/// Returns the error of a line that is no success.
fn answer(line: &str) -> CommandError {
    let shown: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    if line.starts_with("CLIENT_ERROR ") || line.starts_with("SERVER_ERROR ") {
        return CommandError::Refused(shown);
    }
    CommandError::Invalid(format!("an unexpected line: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_or_get_the_usual_one() {
        for address in ["localhost:1", "127.0.0.1:65535", "[::1]:11211"] {
            assert!(has_port(address), "{address}");
        }
        for address in ["localhost", "127.0.0.1", "[::1]", "::1", "localhost:", "localhost:65536"] {
            assert!(!has_port(address), "{address}");
        }
    }

    #[test]
    fn heads_of_values_are_read_to_the_letter() {
        assert_eq!(value_head("VALUE k 0 5"), Some(("k", 5)));
        assert_eq!(value_head("VALUE k 0 5 17"), Some(("k", 5)), "with the number of `gets`");
        for line in ["VALUE k 0", "VALUE k 0 -1", "VALUE k 0 18446744073709551616", "value k 0 5", ""] {
            assert_eq!(value_head(line), None, "{line}");
        }
    }
}
