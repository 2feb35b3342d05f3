//! nginx as an origin server.

use std::sync::Arc;

use bytes::Bytes;
use greenwave_pooling::{HttpCache, HttpCacheOptions, MemoryHttpStore};
use greenwave_testkit::server::Server;
use http::{Request, Response};
use parking_lot::Mutex;

/// Sends one request on a new connection. Returns the status and the headers of interest.
async fn fetch(port: u16, request: Request<Bytes>) -> std::io::Result<Response<Bytes>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut head =
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", request.uri().path());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let mut response = Response::builder().status(lines.next().unwrap().split(' ').nth(1).unwrap());
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        response = response.header(name, value);
    }
    Ok(response.body(Bytes::from(body.to_owned())).unwrap())
}

#[tokio::test]
async fn nginx_confirms_responses_and_changes_are_detected() {
    let Some(nginx) = Server::nginx() else { return };
    let file = nginx.directory().join("www/page");
    std::fs::write(&file, "first").unwrap();
    let cache = HttpCache::new(Arc::new(MemoryHttpStore::new(10, 1 << 20)), HttpCacheOptions::default());
    let statuses = Arc::new(Mutex::new(Vec::new()));
    let port = nginx.port();
    let get = || {
        let (cache, statuses) = (cache.clone(), statuses.clone());
        async move {
            let request = Request::get("http://localhost/page").body(Bytes::new()).unwrap();
            let fetch = move |request| {
                let statuses = statuses.clone();
                async move {
                    let response = fetch(port, request).await?;
                    statuses.lock().push(response.status().as_u16());
                    Ok::<_, std::io::Error>(response)
                }
            };
            cache.send(request, fetch).await.unwrap()
        }
    };
    for _ in 0..2 {
        let response = get().await;
        assert_eq!((response.status().as_u16(), response.body()), (200, &Bytes::from("first")));
    }
    std::fs::write(&file, "changed").unwrap();
    assert_eq!(get().await.body(), "changed");
    assert_eq!(get().await.body(), "changed");
    assert_eq!(
        *statuses.lock(),
        [200, 304, 200, 304],
        "no-cache: revalidated each time, resent after a change"
    );
}
