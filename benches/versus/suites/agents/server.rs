//! A model server with the chat completions of OpenAI. It runs in another process, so that its
//! memory and processor time are not those of the contestants.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenwave_benches::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Argument of the process that is a server.
const ARGUMENT: &str = "--serve";

/// Events with text in a fast response.
pub(crate) const EVENTS: usize = 100;
/// Events with text in a paced response.
pub(crate) const PACED_EVENTS: usize = 20;
/// Time between two events of a paced response: fifty tokens per second.
const PACE: Duration = Duration::from_millis(20);
/// Text of the events of a fast response.
pub(crate) const TEXT: &str = "let x = 1;";

/// A running server, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts a server on a free port.
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(ARGUMENT).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }

    /// Returns the address of an interface: `fast`, `paced` or `burst`.
    pub(crate) fn url(&self, kind: &str) -> String {
        format!("http://{}/{kind}", self.address)
    }

    /// Returns the number of connections that were opened up to now.
    pub(crate) fn connections(&self) -> Result<u64> {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(&self.address)?;
        stream.write_all(b"GET /connections HTTP/1.1\r\ncontent-length: 0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether this process works as a server.
pub(crate) fn is_server() -> bool {
    std::env::args().nth(1).as_deref() == Some(ARGUMENT)
}

/// Serves until the process is killed.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut output = std::io::stdout();
        writeln!(output, "{}", listener.local_addr()?)?;
        output.flush()?;
        let responses = Arc::new(Responses::new());
        loop {
            let (stream, _) = listener.accept().await?;
            responses.connections.fetch_add(1, Ordering::Relaxed);
            let responses = Arc::clone(&responses);
            tokio::spawn(async move {
                // A client may leave at any time.
                let _ = respond(stream, &responses).await;
            });
        }
    })
}

struct Responses {
    /// Everything up to the last chunk.
    fast: Vec<u8>,
    connections: AtomicU64,
    /// Number of paced responses, which begin at different times.
    paced: AtomicU64,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// The last chunk. Servers send it by itself, after the last event.
const LAST: &[u8] = b"0\r\n\r\n";

impl Responses {
    fn new() -> Self {
        let mut fast = HEAD.as_bytes().to_vec();
        (0..EVENTS).for_each(|_| fast.extend(chunk(&event(TEXT))));
        fast.extend(chunk(&end()));
        Self { fast, connections: AtomicU64::new(0), paced: AtomicU64::new(0) }
    }
}

/// Returns an event as OpenAI sends it.
fn event(text: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-CKzMhZ1vQbW8pTq0f3\",\"object\":\"chat.completion.chunk\",\
         \"created\":1764590000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
         \"system_fingerprint\":\"fp_655641dc75\",\"choices\":[{{\"index\":0,\"delta\":\
         {{\"content\":\"{text}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
    )
}

fn end() -> String {
    "data: {\"id\":\"chatcmpl-CKzMhZ1vQbW8pTq0f3\",\"object\":\"chat.completion.chunk\",\
     \"created\":1764590000,\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"delta\":{},\
     \"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
        .to_owned()
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

async fn respond(mut stream: TcpStream, responses: &Responses) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let Some(path) = request(&mut stream, &mut buffer).await? else { return Ok(()) };
        match path.split('/').nth(1) {
            Some("fast") => {
                stream.write_all(&responses.fast).await?;
                stream.write_all(LAST).await?;
            }
            Some("paced") => {
                let number = responses.paced.fetch_add(1, Ordering::Relaxed);
                // Coprime to the pace in microseconds, so that the times are spread evenly.
                let start = Duration::from_micros(number * 7_919 % 20_000);
                paced(&mut stream, start).await?;
            }
            Some("burst") => paced(&mut stream, Duration::ZERO).await?,
            _ => {
                let count = responses.connections.load(Ordering::Relaxed);
                stream.write_all(count.to_string().as_bytes()).await?;
                return Ok(());
            }
        }
    }
}

/// Sends a response whose events contain the time at which they are sent.
async fn paced(stream: &mut TcpStream, start: Duration) -> Result<()> {
    stream.write_all(HEAD.as_bytes()).await?;
    tokio::time::sleep(start).await;
    let mut interval = tokio::time::interval(PACE);
    interval.tick().await;
    for _ in 0..PACED_EVENTS {
        interval.tick().await;
        stream.write_all(&chunk(&event(&now().to_string()))).await?;
    }
    stream.write_all(&chunk(&end())).await?;
    stream.write_all(LAST).await?;
    Ok(())
}

/// Returns the time in nanoseconds, on the clock that all processes share.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Reads a request. Returns its path, or `None` at the end of the connection.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<String>> {
    loop {
        if let Some(head) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.ok_or("a request without length")?.trim().parse()?;
            let end = head + 4 + length;
            while buffer.len() < end {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            buffer.drain(..end);
            let path = text.split(' ').nth(1).unwrap_or_default();
            return Ok(Some(path.to_owned()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
