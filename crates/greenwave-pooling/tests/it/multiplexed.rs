//! Tests of `Multiplexed` and `Balanced`.

use std::time::Duration;

use greenwave_pooling::{Balanced, Error, LengthFraming, LineFraming, Multiplexed, MultiplexedOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::timeout;

fn options(in_flight_max: usize) -> MultiplexedOptions {
    MultiplexedOptions { in_flight_max, ..MultiplexedOptions::default() }
}

/// Reads one frame: id and content.
async fn read_frame(stream: &mut DuplexStream) -> (u64, Vec<u8>) {
    let length = stream.read_u32().await.unwrap();
    let id = stream.read_u64().await.unwrap();
    let mut content = vec![0; length as usize];
    stream.read_exact(&mut content).await.unwrap();
    (id, content)
}

async fn answer(stream: &mut DuplexStream, id: u64, content: &[u8]) {
    let mut bytes = Vec::new();
    LengthFraming::write(id, content, &mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
}

fn spawn_request(
    line: &Multiplexed<LengthFraming>,
    content: u8,
) -> tokio::task::JoinHandle<Result<Vec<u8>, Error>> {
    let line = line.clone();
    tokio::spawn(async move { line.request(vec![content]).await })
}

#[tokio::test(start_paused = true)]
async fn responses_reach_their_callers_in_any_order() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let line = Multiplexed::new(near, LengthFraming, options(16));
    let pending: Vec<_> = (0..8).map(|content| spawn_request(&line, content)).collect();
    let mut frames = Vec::new();
    for _ in 0..8 {
        frames.push(read_frame(&mut far).await);
    }
    assert_eq!(line.in_flight(), 8);
    for (id, content) in frames.into_iter().rev() {
        answer(&mut far, id, &[content[0], 100 + content[0]]).await;
    }
    for (content, pending) in (0..8).zip(pending) {
        assert_eq!(pending.await.unwrap().unwrap(), [content, 100 + content]);
    }
    assert_eq!(line.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_fails_the_requests_it_carries() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let line = Multiplexed::new(near, LengthFraming, options(4));
    let answered = spawn_request(&line, 1);
    let (id, _) = read_frame(&mut far).await;
    answer(&mut far, id, b"in time").await;
    assert_eq!(answered.await.unwrap().unwrap(), b"in time");

    let carried = [spawn_request(&line, 2), spawn_request(&line, 3)];
    for _ in 0..2 {
        read_frame(&mut far).await;
    }
    drop(far);
    for carried in carried {
        assert!(matches!(carried.await.unwrap(), Err(Error::ConnectionLost { .. })));
    }
    assert!(line.is_broken());
    assert!(matches!(line.request(vec![4]).await, Err(Error::ConnectionLost { .. })));
    assert_eq!(line.in_flight(), 0, "no capacity is lost");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_stays_in_flight_until_its_response() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let line = Multiplexed::new(near, LengthFraming, options(1));
    assert!(timeout(Duration::from_secs(1), line.request(vec![1])).await.is_err());
    let (gone, _) = read_frame(&mut far).await;
    let next = spawn_request(&line, 2);
    assert!(timeout(Duration::from_secs(1), far.read_u8()).await.is_err(), "one at a time");
    answer(&mut far, gone, b"late").await;
    let (id, content) = read_frame(&mut far).await;
    assert_eq!(content, [2]);
    answer(&mut far, id, b"mine").await;
    assert_eq!(next.await.unwrap().unwrap(), b"mine");
}

#[tokio::test(start_paused = true)]
async fn lines_are_answered_in_order() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let line = Multiplexed::new(near, LineFraming::default(), options(100));
    tokio::spawn(async move {
        let (reader, mut writer) = tokio::io::split(far);
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            // Byte by byte, as a network may deliver it.
            for byte in format!("echo {line}\r\n").bytes() {
                writer.write_all(&[byte]).await.unwrap();
            }
        }
    });
    let refused = line.request("two\nlines".to_owned()).await;
    assert!(matches!(refused, Err(Error::InvalidRequest { .. })), "the request would be two lines");
    let pending: Vec<_> = (0..50)
        .map(|i| {
            let line = line.clone();
            tokio::spawn(async move { line.request(format!("{i}!")).await })
        })
        .collect();
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.unwrap().unwrap(), format!("echo {i}!"));
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_and_endless_frames_break_the_connection() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let limits = MultiplexedOptions { frame_bytes_max: 100, ..options(1) };
    let line = Multiplexed::new(near, LengthFraming, limits);
    let pending = spawn_request(&line, 1);
    read_frame(&mut far).await;
    far.write_all(&[255; 200]).await.unwrap();
    assert!(matches!(pending.await.unwrap(), Err(Error::ConnectionLost { .. })));

    let (near, mut far) = tokio::io::duplex(1 << 16);
    let line = Multiplexed::new(near, LineFraming::default(), options(1));
    far.write_all(b"unexpected\n").await.unwrap();
    while !line.is_broken() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_balancer_prefers_fewer_in_flight_and_skips_broken_connections() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let (other_near, other_far) = tokio::io::duplex(1 << 16);
    let lines = [near, other_near].map(|near| Multiplexed::new(near, LengthFraming, options(8)));
    let balanced = Balanced::new(lines.clone(), Some(1));
    let _held = spawn_request(&lines[0], 1);
    read_frame(&mut far).await;
    for _ in 0..20 {
        assert_eq!(balanced.pick().unwrap().in_flight(), 0);
    }
    drop(other_far);
    while !lines[1].is_broken() {
        tokio::task::yield_now().await;
    }
    assert_eq!(balanced.pick().unwrap().in_flight(), 1);
    drop(far);
    while !lines[0].is_broken() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(balanced.request(vec![]).await, Err(Error::Closed)));
}

#[cfg(feature = "json-rpc")]
#[tokio::test(start_paused = true)]
async fn json_rpc_matches_responses_by_id_and_ignores_notifications() {
    use greenwave_pooling::JsonRpcFraming;
    use serde_json::{Value, json};

    let (near, far) = tokio::io::duplex(1 << 16);
    let line = Multiplexed::new(near, JsonRpcFraming::default(), options(8));
    tokio::spawn(async move {
        let (reader, mut writer) = tokio::io::split(far);
        let mut lines = BufReader::new(reader).lines();
        let mut pending = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            pending.push(serde_json::from_str::<Value>(&line).unwrap());
            if pending.len() == 2 {
                writer.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"progress\"}\n").await.unwrap();
                for pending in pending.drain(..).rev() {
                    let answer =
                        json!({ "jsonrpc": "2.0", "id": pending["id"], "result": pending["params"] });
                    writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
                }
            }
        }
    });
    let ask = |n: u64| line.request(("echo".to_owned(), json!([n])));
    let (one, two) = tokio::join!(ask(1), ask(2));
    assert_eq!((&one.unwrap()["result"], &two.unwrap()["result"]), (&json!([1]), &json!([2])));
}
