//! An HTTP server on a free loopback port whose responses a test decides, faults included.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request that the server has received.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// Method and path, such as `POST /v1/messages`.
    pub target: String,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl HttpRequest {
    /// Returns the value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A response of the server.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Vec<u8>>,
    delay: Duration,
    is_cut: bool,
}

impl HttpResponse {
    /// A response with this status and body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, chunks) = (Vec::new(), vec![body.into()]);
        Self { status, headers, chunks, delay: Duration::ZERO, is_cut: false }
    }

    /// A stream of events with these data, each in a chunk.
    #[must_use]
    pub fn events<S: AsRef<str>>(data: impl IntoIterator<Item = S>) -> Self {
        let chunk = |data: S| format!("data: {}\n\n", data.as_ref()).into_bytes();
        let chunks = data.into_iter().map(chunk).collect();
        Self { chunks, ..Self::new(200, "").with("content-type", "text/event-stream") }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks of this many bytes.
    #[must_use]
    pub fn in_chunks_of(self, bytes: usize) -> Self {
        let body = self.chunks.concat();
        Self { chunks: body.chunks(bytes).map(<[u8]>::to_vec).collect(), ..self }
    }

    /// Sends each chunk after a delay.
    #[must_use]
    pub fn after_each(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Closes the connection after this many bytes of the body.
    #[must_use]
    pub fn cut_after(self, bytes: usize) -> Self {
        let mut body = self.chunks.concat();
        body.truncate(bytes);
        Self { chunks: vec![body], is_cut: true, ..self }
    }

    /// Returns the size of the body, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }
}

type Responder = dyn Fn(&HttpRequest, usize) -> HttpResponse + Send + Sync;

/// A running server. It serves until the process ends.
#[derive(Clone)]
pub struct HttpServer {
    port: u16,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpServer").field("port", &self.port).finish_non_exhaustive()
    }
}

impl HttpServer {
    /// Starts a server. `respond` gets each request and its number, from 0.
    pub fn start(respond: impl Fn(&HttpRequest, usize) -> HttpResponse + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let (shared, respond) = (server.clone(), Arc::new(respond));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, respond) = (shared.clone(), Arc::clone(&respond));
                // A client that goes away is no failure of the server.
                std::thread::spawn(move || server.serve(&stream, &*respond));
            }
        });
        server
    }

    /// Returns the address, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the requests that were received, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, stream: &TcpStream, respond: &Responder) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let request = read_request(&mut reader)?;
            let number = {
                let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
                requests.push(request.clone());
                requests.len() - 1
            };
            let response = respond(&request, number);
            send(stream, &response)?;
            if response.is_cut {
                return None;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<HttpRequest> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let target = line.rsplit_once(" HTTP/")?.0.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = HttpRequest { target, headers, body: String::new() };
    let length: u64 = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}

fn send(mut stream: &TcpStream, response: &HttpResponse) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\ntransfer-encoding: chunked\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    for chunk in response.chunks.iter().filter(|chunk| !chunk.is_empty()) {
        std::thread::sleep(response.delay);
        let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        stream.write_all(&framed).ok()?;
    }
    if !response.is_cut {
        stream.write_all(b"0\r\n\r\n").ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &HttpServer) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(b"POST /a HTTP/1.1\r\nX-Name: v\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn responses_are_sent_as_the_test_decides() {
        let server = HttpServer::start(|request, number| match number {
            0 => HttpResponse::new(429, "no").with("retry-after", request.header("x-name").unwrap()),
            1 => HttpResponse::events(["a", "b"]),
            _ => HttpResponse::events(["abc"]).cut_after(7),
        });
        let head = "HTTP/1.1 429 Scripted\r\ntransfer-encoding: chunked\r\nretry-after: v\r\n\r\n";
        assert_eq!(ask(&server), format!("{head}2\r\nno\r\n0\r\n\r\n"));
        assert!(ask(&server).ends_with("\r\n9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n"));
        assert!(ask(&server).ends_with("\r\n7\r\ndata: a\r\n"));
        let requests = server.requests();
        assert_eq!(
            (requests.len(), &*requests[0].target, requests[0].json()),
            (3, "POST /a", "{}".parse().unwrap())
        );
    }
}
