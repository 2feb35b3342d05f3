//! A caching reverse proxy for HTTP/1.1, which puts [`HttpCache`] in front of a server. It handles
//! one request per connection, without TLS, on the loopback. Use it to try out a cache, for example
//! with the public test suite <https://cache-tests.fyi>:
//!
//! ```console
//! $ git clone https://github.com/http-tests/cache-tests && cd cache-tests && npm install
//! $ npm run server &
//! $ cargo run -p greenwave-pooling --example caching_proxy --features http -- 8001 8000 shared
//! $ npm run --silent cli --base=http://127.0.0.1:8001 > results.json
//! ```

#![expect(clippy::print_stderr, reason = "a program of its own")]

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use greenwave_pooling::{HttpCache, HttpCacheOptions, MemoryHttpStore};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Maximum size of a head or body in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [port, origin, mode] = &arguments[..] else {
        return Err(invalid("expected: PORT ORIGIN_PORT (shared|private)"));
    };
    let [port, origin] = [port, origin].map(|port| port.parse::<u16>());
    let (port, origin) = (port.map_err(invalid)?, origin.map_err(invalid)?);
    let options = HttpCacheOptions { is_shared: mode == "shared", ..HttpCacheOptions::default() };
    let cache = HttpCache::new(Arc::new(MemoryHttpStore::new(10_000, 256 << 20)), options);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let cache = cache.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(client, cache, origin).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn serve(mut client: TcpStream, cache: HttpCache, origin: u16) -> Result<()> {
    let mut input = BytesMut::new();
    let (line, headers) = read_head(&mut client, &mut input).await?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = read_body(&mut client, input, &headers, Some(0)).await?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(invalid)?;
    *request.uri_mut() = format!("http://127.0.0.1:{origin}{path}").parse().map_err(invalid)?;
    *request.headers_mut() = headers;
    let is_head = request.method() == Method::HEAD;

    // Interim responses are passed on immediately, whether or not the final response will be
    // stored.
    let (interim, mut interims) = mpsc::unbounded_channel::<String>();
    let fetch = move |request| fetch(origin, request, interim.clone());
    let answer = cache.send(request, fetch);
    tokio::pin!(answer);
    let response = loop {
        tokio::select! {
            biased;
            Some(head) = interims.recv() => client.write_all(head.as_bytes()).await?,
            response = &mut answer => break response,
        }
    };
    while let Ok(head) = interims.try_recv() {
        client.write_all(head.as_bytes()).await?;
    }
    let response = response.unwrap_or_else(|error| {
        let mut response = Response::new(Bytes::from(error.to_string()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    let (parts, body) = response.into_parts();
    let mut head = format!("HTTP/1.1 {} -\r\n", parts.status.as_u16()).into_bytes();
    let mut headers = parts.headers;
    headers.remove("transfer-encoding");
    headers.remove("connection");
    let has_body = !is_head && ![204, 304].contains(&parts.status.as_u16());
    if has_body && !headers.contains_key("content-length") {
        headers.insert("content-length", HeaderValue::from(body.len()));
    }
    write_headers(&headers, &mut head);
    client.write_all(&head).await?;
    client.write_all(&body).await?;
    client.shutdown().await
}

/// Sends the request to the origin server.
async fn fetch(
    port: u16,
    request: Request<Bytes>,
    interim: mpsc::UnboundedSender<String>,
) -> Result<Response<Bytes>> {
    let mut origin = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = format!("{} {path} HTTP/1.1\r\n", parts.method).into_bytes();
    parts.headers.remove("connection");
    parts.headers.remove("transfer-encoding");
    parts.headers.insert("content-length", HeaderValue::from(body.len()));
    write_headers(&parts.headers, &mut head);
    origin.write_all(&head).await?;
    origin.write_all(&body).await?;

    let mut input = BytesMut::new();
    loop {
        let (line, headers) = read_head(&mut origin, &mut input).await?;
        let status = line.split(' ').nth(1).unwrap_or_default();
        let status = StatusCode::from_bytes(status.as_bytes()).map_err(invalid)?;
        if status.is_informational() {
            let mut head = format!("HTTP/1.1 {} -\r\n", status.as_u16()).into_bytes();
            for (name, value) in &headers {
                head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
            let head = String::from_utf8_lossy(&head).into_owned() + "\r\n";
            // The client may have disconnected. The final response is still useful.
            interim.send(head).ok();
            continue;
        }
        let is_empty = parts.method == Method::HEAD || [204, 304].contains(&status.as_u16());
        let body =
            if is_empty { Bytes::new() } else { read_body(&mut origin, input, &headers, None).await? };
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        return Ok(response);
    }
}

/// Reads the start line and the fields. Bytes after them stay in `input`.
async fn read_head(stream: &mut TcpStream, input: &mut BytesMut) -> Result<(String, HeaderMap)> {
    let end = loop {
        if let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if input.len() > MESSAGE_BYTES_MAX || stream.read_buf(input).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    };
    let head = input.split_to(end + 4);
    let mut lines =
        head[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or_else(|| invalid("a field without a colon"))?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(invalid)?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(invalid)?);
    }
    Ok((first, headers))
}

/// Reads a body with a length, in chunks, or, if `otherwise` is `None`, up to the end of the
/// connection.
async fn read_body(
    stream: &mut TcpStream,
    mut input: BytesMut,
    headers: &HeaderMap,
    otherwise: Option<usize>,
) -> Result<Bytes> {
    let is_chunked =
        headers.get("transfer-encoding").is_some_and(|value| value.as_bytes().ends_with(b"chunked"));
    let length =
        headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).or(otherwise);
    if is_chunked {
        let mut body = BytesMut::new();
        loop {
            let size = loop {
                if let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") {
                    let line = input.split_to(end + 2);
                    break String::from_utf8_lossy(&line[..end]).into_owned();
                }
                read_more(stream, &mut input).await?;
            };
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(invalid)?;
            if size.saturating_add(body.len()) > MESSAGE_BYTES_MAX {
                return Err(invalid("a body beyond the limit"));
            }
            while input.len() < size + 2 {
                read_more(stream, &mut input).await?;
            }
            body.extend_from_slice(&input.split_to(size + 2)[..size]);
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }
    match length {
        Some(length) => {
            while input.len() < length {
                // A server may send less than it announced. The received bytes are the body.
                if input.len() > MESSAGE_BYTES_MAX || stream.read_buf(&mut input).await? == 0 {
                    break;
                }
            }
            input.truncate(length);
        }
        None => while input.len() <= MESSAGE_BYTES_MAX && stream.read_buf(&mut input).await? > 0 {},
    }
    Ok(input.freeze())
}

async fn read_more(stream: &mut TcpStream, input: &mut BytesMut) -> Result<()> {
    match stream.read_buf(input).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn write_headers(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    out.extend(b"connection: close\r\n\r\n");
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidInput, error)
}
