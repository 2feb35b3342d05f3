//! Tests of readers as sources, and of streams of single units.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_streaming::{Budget, Error, Lines, Pull, ReadChunks, Sse};
use tokio::io::{AsyncRead, ReadBuf};

#[tokio::test]
async fn lines_of_a_child_process_are_read() {
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", "echo one; echo two; printf three"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut units = Pull::read(child.stdout.take().expect("a pipe"), Lines::default()).units();
    let mut seen = Vec::new();
    while let Some(unit) = units.next().await {
        seen.push(String::from_utf8(unit.expect("a line").get().bytes().to_vec()).expect("text"));
    }
    assert_eq!(seen, ["one", "two", "three"]);
    assert!(child.wait().await.expect("an exit").success());
    assert_eq!(units.pull().stats().units, 3);
}

/// Reads one byte at a time, is interrupted before each, and fails after the third.
struct Flaky(u8, bool);

impl AsyncRead for Flaky {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
        }
        if self.0 == 3 {
            return Poll::Ready(Err(io::Error::other("broken")));
        }
        buf.put_slice(&[b'a' + self.0]);
        self.0 += 1;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_interrupted_read_is_repeated_and_an_error_ends_the_stream() {
    let chunks: Vec<_> = ReadChunks::new(Flaky(0, false)).collect().await;
    let seen: Vec<_> = chunks.iter().map(|chunk| chunk.as_ref().ok().map(|bytes| bytes.to_vec())).collect();
    assert_eq!(seen, [Some(b"a".to_vec()), Some(b"b".to_vec()), Some(b"c".to_vec()), None]);
    let mut pull = Pull::read(Flaky(0, false), Lines::default());
    let error = pull.next().await.expect("an error").expect_err("an error");
    assert!(matches!(error, Error::Source { received: 3, .. }), "{error:?}");
    assert!(pull.next().await.is_none());
}

#[tokio::test]
async fn a_large_input_arrives_whole_in_bounded_memory() {
    let line = "x".repeat(99);
    let input = format!("{line}\n").repeat(50_000);
    let budget = Budget::new(256 << 10);
    let mut units = Pull::read(io::Cursor::new(input), Lines::default()).with_budget(budget.clone()).units();
    let mut count = 0;
    while let Some(unit) = units.next().await {
        assert_eq!(unit.expect("a line").get().content(), line.as_bytes());
        count += 1;
    }
    assert_eq!(count, 50_000);
}

#[tokio::test]
async fn events_are_values() {
    let chunks =
        ["retry: 250\nevent: a\nid: 7\nda", "ta: one\ndata: two\n\n", "data: three\n\ndata: cut off"];
    let source = stream::iter(chunks.map(|chunk| Ok::<_, io::Error>(Bytes::from(chunk))));
    let mut events = Pull::new(source, Sse::default()).events();
    let first = events.next().await.expect("an event").expect("an event");
    assert_eq!((&*first.event, &*first.data, &*first.id), ("a", "one\ntwo", "7"));
    assert_eq!(first.retry, Some(Duration::from_millis(250)));
    let rest: Vec<_> = StreamExt::map(events, |event| event.expect("an event").to_string()).collect().await;
    assert_eq!(rest, ["three"]);
}
