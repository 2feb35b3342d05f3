//! A connection to a Redis server that ends when the server sends more than it may.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::messages::MessageScanner;

/// A connection that the calls of all callers share. It ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// The task that writes commands and reads answers.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects to a server, whose answers have up to `answer_bytes_max` bytes.
    pub(super) async fn open(info: &ConnectionInfo, answer_bytes_max: u64) -> Result<Self, RedisError> {
        let stream = BoundedStream {
            stream: connect(info.addr()).await?,
            asked: MessageScanner::new(u64::MAX),
            answered: MessageScanner::new(answer_bytes_max),
            has_failed: false,
        };
        // The circuit breaker enforces the timeout.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (commands, driver) =
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
        Ok(Self { commands, _driver: Arc::new(Driver(tokio::spawn(driver))) })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

async fn connect(address: &ConnectionAddr) -> Result<Pin<Box<dyn Stream>>, RedisError> {
    match address {
        ConnectionAddr::Tcp(host, port) => Ok(Box::pin(connect_tcp(host, *port).await?)),
        #[cfg(feature = "redis-tls")]
        ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
            let name = rustls::pki_types::ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = connect_tcp(host, *port).await?;
            Ok(Box::pin(tls()?.connect(name, stream).await?))
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Ok(Box::pin(UnixStream::connect(path).await?)),
        _ => Err((ErrorKind::InvalidClientConfig, "addresses of this kind are not supported").into()),
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Commands are short, and each waits for its answer.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns a connector that trusts the certificates of the system.
#[cfg(feature = "redis-tls")]
fn tls() -> io::Result<tokio_rustls::TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    // Some systems have certificates that nobody can read.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// Bytes to and from a server, in which each command has one answer of limited size.
struct BoundedStream {
    stream: Pin<Box<dyn Stream>>,
    asked: MessageScanner,
    answered: MessageScanner,
    has_failed: bool,
}

impl BoundedStream {
    fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.answered.read(bytes)?;
        let is_answer = self.answered.is_between_messages();
        let answers = self.answered.complete() + u64::from(!is_answer);
        if answers > self.asked.complete() {
            return Err("an answer that was not asked for".to_owned());
        }
        Ok(())
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_failed {
            // The client reads on after an error. This is the end of the stream.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(self.stream.as_mut().poll_read(context, buffer))?;
        let checked = self.check(&buffer.filled()[before..]);
        Poll::Ready(checked.map_err(|problem| {
            self.has_failed = true;
            io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {problem}"))
        }))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.as_mut().poll_write(context, bytes))?;
        self.asked.read(&bytes[..written]).map_err(io::Error::other)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }
}
