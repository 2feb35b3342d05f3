//! Model servers that lead requests elsewhere, or send without an end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use greenwave_agents::{Agent, ApiKeySource, Error, HttpAgent, HttpApi, HttpOptions, Request};
use greenwave_testkit::http::{HttpResponse, HttpServer};

/// Sends a request with a key, and returns the error.
async fn error(url: String) -> Error {
    let key = ApiKeySource::Variable("MY_KEY".to_owned());
    let options = HttpOptions { base_url: url, key, ..HttpOptions::new(HttpApi::OpenAiChat, "m") };
    let agent = HttpAgent::new(options, Some("very-secret-key")).unwrap();
    let request = Request::new("f", 1, "Write it.", ".", std::env::temp_dir());
    match agent.connect().await.unwrap().send(&request).await {
        Err(error) => error,
        Ok(mut response) => loop {
            if let Err(error) = response.next().await.unwrap() {
                return error;
            }
        },
    }
}

#[tokio::test]
async fn a_redirect_leads_neither_request_nor_key_elsewhere() {
    let other = HttpServer::start(|_, _| HttpResponse::new(200, ""));
    for status in [301, 302, 303, 307, 308] {
        for target in [format!("{}/v1/chat/completions", other.url()), "file:///etc/passwd".to_owned()] {
            let server =
                HttpServer::start(move |_, _| HttpResponse::new(status, "").with("location", &target));
            assert!(error(server.url()).await.is_permanent(), "{status}");
        }
    }
    assert!(other.requests().is_empty());
}

/// Serves each connection with a start, and then a part again and again.
fn endless(start: &'static str, part: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 65536]);
            let parts = part.repeat(1000);
            // The client closes the connection.
            let _ = stream.write_all(start.as_bytes());
            while stream.write_all(parts.as_bytes()).is_ok() {}
        }
    });
    url
}

/// The client must stop reading by itself: the server does not.
#[tokio::test]
async fn what_has_no_end_is_refused() {
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let chunked = format!("{events}transfer-encoding: chunked\r\n\r\n1;").leak();
    let line = format!("{events}\r\ndata: ").leak();
    for (start, part, expected) in [
        ("HTTP/1.1 200 OK\r\n", "a: b\r\n", "message head is too large"),
        // Four digits at once: a status line in two reads may be refused for its length instead.
        ("HTTP/1.1 2222", "2", "invalid HTTP status-code"),
        ("HTTP/1.1 200 OK\r\na: ", "b", "message head is too large"),
        (chunked, "x", "chunk extensions over limit"),
        (line, "x", "cannot read the answer"),
        ("HTTP/1.1 400 No\r\n\r\n", "x", "refused the request"),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n", "x", "expected `text/event-stream`"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "x", "invalid content-length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", "x", "invalid content-length"),
    ] {
        let error = error(endless(start, part)).await;
        let mut text = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            text.push_str(&format!(": {cause}"));
        }
        assert!(text.contains(expected) && text.len() < 1000, "{expected}: {text}");
    }
}

/// Serves every connection with the same bytes, then closes it. Returns its port and the number of
/// connections.
fn always(bytes: &'static [u8]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 65536]);
            // The client may have closed the connection.
            let _ = stream.write_all(bytes);
        }
    });
    (port, connections)
}

/// Returns a response head that is valid up to this header.
fn head(header: &str) -> &'static [u8] {
    format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n").leak().as_bytes()
}

#[tokio::test]
async fn a_server_that_does_not_keep_to_its_protocol_is_asked_three_times() {
    let many = (0..200).map(|number| format!("h{number}: x\r\n")).collect::<String>();
    for (scheme, bytes) in [
        ("http", &b"SSH-2.0-OpenSSH_9.9\r\n"[..]),
        ("http", b"220 mail.example.com ESMTP\r\n"),
        ("http", b"+OK\r\n"),
        ("http", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("http", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("http", b"HTTP/9.9 200 OK\r\n\r\n"),
        ("http", b"HTTP/1.1 2x0 OK\r\n\r\n"),
        ("http", b"HTTP/1.1 99999 OK\r\n\r\n"),
        ("http", b"HTTP/1.1 000 OK\r\n\r\n"),
        ("http", head("content-length: -5")),
        ("http", head("content-length: 1\r\ncontent-length: 2")),
        ("http", head("transfer-encoding: chunked, x\0")),
        ("http", head("no colon")),
        ("http", head("na me: x")),
        ("http", head("a: \0")),
        ("http", head(&many)),
        ("http", head(&format!("a: {}", "x".repeat(1 << 20)))),
        ("https", head("content-length: 0")),
        ("https", b"\x15\x03\x03\x00\x02\x02\x28"),
        ("https", b"\x16\x03\x03\xff\xff"),
    ] {
        let (port, connections) = always(bytes);
        let error = error(format!("{scheme}://127.0.0.1:{port}")).await;
        let shown = bytes[..bytes.len().min(60)].escape_ascii();
        assert!(matches!(error, Error::ProtocolViolation { .. }), "{scheme}, {shown}: {error:?}");
        assert!(error.is_permanent() && error.to_string().len() < 100, "{error}");
        assert_eq!(connections.load(Ordering::SeqCst), 3, "{scheme}, {shown}");
    }
}

/// The caller waits and repeats requests that failed for a reason which may not last.
#[tokio::test]
async fn a_server_that_closes_connections_is_asked_once() {
    for (scheme, bytes) in [
        ("http", &b""[..]),
        ("http", b"HTTP/1.1 200"),
        ("http", b"HTTP/1.1 200 OK\r\na: b"),
        ("https", b""),
        ("https", b"\x15\x03\x03\x00\x02\x02\x50"),
    ] {
        let (port, connections) = always(bytes);
        let error = error(format!("{scheme}://127.0.0.1:{port}")).await;
        let is_unreachable = matches!(error, Error::ServerUnavailable { is_unreachable: true, .. });
        assert!(is_unreachable, "{}: {error:?}", bytes.escape_ascii());
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{}", bytes.escape_ascii());
    }
}

/// An answer has begun, so the caller decides about another attempt.
#[tokio::test]
async fn invalid_chunks_are_an_invalid_answer() {
    let events = "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    for chunk in ["no size", "-1", "fffffffffffffffff", "1\r\nxyz\r\n0"] {
        let (port, connections) = always(head(&format!("{events}{chunk}")));
        let error = error(format!("http://127.0.0.1:{port}")).await;
        assert!(matches!(error, Error::InvalidAnswer { .. }), "{chunk:?}: {error:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}
