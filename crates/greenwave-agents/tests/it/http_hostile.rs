//! Model servers that lead requests elsewhere, or send without an end.

use std::io::{Read, Write};
use std::net::TcpListener;

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

/// Serves one connection: a start, and then a part again and again.
fn endless(start: &'static str, part: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 65536]);
        let parts = part.repeat(1000);
        // The client closes the connection.
        let _ = stream.write_all(start.as_bytes());
        while stream.write_all(parts.as_bytes()).is_ok() {}
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
