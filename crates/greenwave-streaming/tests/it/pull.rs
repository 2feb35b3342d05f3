//! Tests reading from a source: order, ends, errors and limits.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use greenwave_streaming::{Cuts, Error, Json, Limits, Lines, Pull, SplitError, Splitter, Sse, TimeoutKind};
use tokio::time::{Instant, sleep};

fn chunks(chunks: &[&'static str]) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    stream::iter(chunks.to_vec()).map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())))
}

/// Returns chunks, each after a number of seconds, and then stays pending.
fn slow(chunks: &[(u64, &'static str)]) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let timed = stream::iter(chunks.to_vec()).then(async |(seconds, chunk)| {
        sleep(Duration::from_secs(seconds)).await;
        Ok(Bytes::from_static(chunk.as_bytes()))
    });
    timed.chain(stream::pending())
}

/// Returns the text of all units and the final error, if any.
async fn drain<St, S, E>(mut pull: Pull<St, S>) -> (Vec<String>, Option<Error>)
where
    St: Stream<Item = Result<Bytes, E>>,
    S: Splitter,
    E: Into<greenwave_streaming::BoxError>,
{
    let mut texts = Vec::new();
    while let Some(batch) = pull.next().await {
        match batch {
            Ok(batch) => {
                texts.extend(batch.iter().map(|unit| String::from_utf8_lossy(&unit.bytes()).into_owned()));
            }
            Err(error) => {
                assert!(pull.next().await.is_none(), "no item follows an error");
                return (texts, Some(error));
            }
        }
    }
    assert!(pull.next().await.is_none(), "no item follows the end");
    (texts, None)
}

#[tokio::test]
async fn units_arrive_with_the_chunk_that_completes_them() {
    let mut pull = Pull::new(chunks(&["a\nb", "", "\nc\n", "d"]), Lines::default()).starting_at(5);
    let first = pull.next().await.unwrap().unwrap();
    assert_eq!((first.len(), first.first_sequence()), (1, 5));
    let second = pull.next().await.unwrap().unwrap();
    assert_eq!((second.len(), second.first_sequence()), (2, 6));
    assert_eq!(second.block(), "b\nc\n");
    assert_eq!(drain(pull).await.0, ["d"]);
}

#[tokio::test(start_paused = true)]
async fn stats_count_bytes_chunks_and_units() {
    let source = slow(&[(2, "a"), (3, "b\nc\n")]);
    let mut pull = Pull::new(source, Lines::default());
    pull.next().await.unwrap().unwrap();
    let stats = pull.stats();
    assert_eq!((stats.bytes, stats.chunks, stats.units, stats.batches), (5, 2, 2, 1));
    assert_eq!(stats.first_unit, Some(Duration::from_secs(5)));
}

#[tokio::test]
async fn a_broken_source_is_an_error() {
    let broken = stream::iter([Ok(Bytes::from_static(b"a\nunfinished")), Err(io::Error::other("gone"))]);
    let (texts, error) = drain(Pull::new(broken, Lines::default())).await;
    assert_eq!(texts, ["a"]);
    let error = error.unwrap();
    assert!(error.is_transient());
    assert_eq!(error.to_string(), "source broke after 12 bytes");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "gone");
}

/// The units before the panic arrive, and nothing after it.
#[tokio::test]
async fn a_source_that_panics_is_broken() {
    let mut number = 0;
    let source = stream::poll_fn(move |_| {
        number += 1;
        assert_ne!(number, 2, "no more data");
        std::task::Poll::Ready(Some(Ok::<_, Infallible>(Bytes::from_static(b"a line\nhalf"))))
    });
    let mut pull = Pull::new(source, Lines::default());
    assert_eq!(pull.next().await.unwrap().unwrap().len(), 1);
    let Some(Err(Error::Source { received, source })) = pull.next().await else { panic!("no error") };
    assert_eq!(received, 11);
    assert!(
        source.to_string().starts_with("source panicked: ") && source.to_string().contains("no more data")
    );
    assert!(pull.next().await.is_none());
}

#[tokio::test]
async fn a_test_for_the_terminal_unit_that_panics_fails_the_stream() {
    let source = || chunks(&["one\ntwo\n", "three\n"]);
    let mut pull = Pull::new(source(), Lines::default()).ends_with(|unit| {
        assert_ne!(unit.bytes(), "two", "boom");
        false
    });
    let Some(Err(Error::Source { source: error, .. })) = pull.next().await else { panic!("no error") };
    assert!(error.to_string().starts_with("the test for the terminal unit panicked: "), "{error}");
    assert!(pull.next().await.is_none());
}

/// Splits lines, and panics at the second chunk.
#[derive(Debug, Default)]
struct PanickingLines(Lines, u32);

impl Splitter for PanickingLines {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        self.1 += 1;
        assert_ne!(self.1, 2, "boom");
        self.0.scan(window, fresh, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        self.0.finish(window, out)
    }
}

#[tokio::test]
async fn a_stream_does_not_continue_after_its_splitter_has_panicked() {
    let mut pull = Pull::new(chunks(&["one\n", "two\n", "three\n"]), PanickingLines::default());
    assert_eq!(pull.next().await.unwrap().unwrap().len(), 1);
    let panicked = std::panic::AssertUnwindSafe(pull.next()).catch_unwind().await;
    assert!(panicked.is_err());
    let Some(Err(Error::Source { source, .. })) = pull.next().await else { panic!("no error") };
    assert_eq!(source.to_string(), "the splitter panicked");
    assert!(pull.next().await.is_none());
}

#[tokio::test]
async fn a_source_that_breaks_at_any_byte_delivers_what_was_complete() {
    let text = "one\ntwo\nthree\n";
    for at in 0..=text.len() {
        let broken = stream::iter([Ok(Bytes::from(&text.as_bytes()[..at])), Err(io::Error::other("gone"))]);
        let (texts, error) = drain(Pull::new(broken, Lines::default())).await;
        assert_eq!(texts.len(), text[..at].matches('\n').count());
        assert!(matches!(error, Some(Error::Source { received, .. }) if received == at as u64));
    }
}

#[tokio::test]
async fn the_terminal_unit_ends_the_stream() {
    let source = chunks(&["data: a\n\ndata: [DONE]\n\n"]).chain(stream::pending());
    let pull = Pull::new(source, Sse::default()).ends_with(|unit| unit.bytes() == "[DONE]");
    assert_eq!(drain(pull).await.0, ["a", "[DONE]"]);

    let pull = Pull::new(chunks(&["data: a\n\n"]), Sse::default()).ends_with(|unit| unit.bytes() == "[DONE]");
    let (texts, error) = drain(pull).await;
    assert_eq!(texts, ["a"]);
    assert!(matches!(error, Some(Error::Truncated { received: 9 })), "{error:?}");
}

#[tokio::test]
async fn an_error_follows_the_units_before_it() {
    let (texts, error) = drain(Pull::new(chunks(&["1 2 ] 3"]), Json::default())).await;
    assert_eq!(texts, ["1", "2"]);
    assert!(matches!(error, Some(Error::Malformed { offset: 4, .. })), "{error:?}");
}

#[tokio::test]
async fn the_whole_stream_is_capped() {
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(b"yes\n")));
    let limits = Limits { stream_bytes_max: Some(10), ..Limits::default() };
    let (texts, error) = drain(Pull::new(endless, Lines::default()).with_limits(limits)).await;
    assert_eq!(texts.len(), 2);
    assert!(matches!(error, Some(Error::StreamTooLong { bytes_max: 10 })), "{error:?}");
}

#[tokio::test]
async fn an_endless_unit_neither_grows_nor_starves_others() {
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 64])));
    let pull = Pull::new(endless, Lines::new(greenwave_streaming::Cap::error(1 << 16)));
    let mut pull = pull;
    let mut yields = 0;
    let error = loop {
        tokio::select! {
            biased;
            next = pull.next() => break next.unwrap().unwrap_err(),
            () = async {} => yields += 1,
        }
    };
    assert!(matches!(error, Error::UnitTooLong { offset: 0, .. }), "{error:?}");
    assert!(yields > 4, "{yields}");
}

#[track_caller]
fn assert_timeout(error: Option<&Error>, expected: TimeoutKind, started: Instant, seconds: u64) {
    assert!(matches!(error, Some(Error::Timeout { limit, .. }) if *limit == expected), "{error:?}");
    assert_eq!(started.elapsed().as_secs(), seconds);
}

#[tokio::test(start_paused = true)]
async fn time_limits_fail_the_stream() {
    let seconds = Duration::from_secs;
    let limits = Limits {
        first_byte: Some(seconds(10)),
        idle: Some(seconds(3)),
        total: Some(seconds(20)),
        ..Limits::default()
    };

    let started = Instant::now();
    let (_, error) = drain(Pull::new(slow(&[]), Lines::default()).with_limits(limits)).await;
    assert_timeout(error.as_ref(), TimeoutKind::FirstByte, started, 10);

    let started = Instant::now();
    let source = slow(&[(9, "a\n"), (2, "b\n"), (2, "c"), (4, "d")]);
    let (texts, error) = drain(Pull::new(source, Lines::default()).with_limits(limits)).await;
    assert_eq!(texts, ["a", "b"]);
    assert_timeout(error.as_ref(), TimeoutKind::Idle, started, 9 + 2 + 2 + 3);

    let started = Instant::now();
    let source = slow(&[(2, "x\n"); 100]);
    let (_, error) = drain(Pull::new(source, Lines::default()).with_limits(limits)).await;
    assert_timeout(error.as_ref(), TimeoutKind::Total, started, 20);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_an_idle_source() {
    let limits = Limits { idle: Some(Duration::from_secs(3)), ..Limits::default() };
    let mut pull =
        Pull::new(slow(&[(1, "a\n"), (2, "b\n"), (2, "c\n")]), Lines::default()).with_limits(limits);
    for _ in 0..3 {
        pull.next().await.unwrap().unwrap();
        sleep(Duration::from_secs(60)).await;
    }
}
