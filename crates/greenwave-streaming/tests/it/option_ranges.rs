//! Tests every public option with zero, one and the largest value. None panics or waits forever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_streaming::conformance::units;
use greenwave_streaming::{
    BoxError, Budget, BufferedSplitter, Cap, Delimited, Error, Fanout, Fences, Files, Json, Limits, Lines,
    OpenError, Opened, Overflow, Paragraphs, PartialJson, Position, Pull, Resume, ResumeOptions,
    ResumeStrategy, Sentences, Source, Splitter, Sse, SubscriberPolicy, UNIT_BYTES_MAX,
};

const SIZES: [usize; 5] = [0, 1, 4, UNIT_BYTES_MAX, usize::MAX];

const INPUT: &[u8] = b"# a.md\n```md\nab\n```bash\nc\n```\n```\n\n[[1],2] \"a\" 3\ndata: x\n\nOne two. Three.\n- ```\n  y\n  ```\n";

#[test]
fn caps_are_clamped() {
    for (bytes_max, taken) in SIZES.into_iter().zip([4, 4, 4, UNIT_BYTES_MAX, UNIT_BYTES_MAX]) {
        assert_eq!(Cap::error(bytes_max).bytes_max(), taken);
        assert_eq!(
            (Cap::split(bytes_max).bytes_max(), Cap::split(bytes_max).overflow()),
            (taken, Overflow::Split)
        );
    }
}

/// Returns whether the splitter accepted the whole input. The only permitted error is a limit.
#[track_caller]
fn is_accepted(splitter: impl Splitter, what: &str) -> bool {
    let (_, error) = units(splitter, INPUT.chunks(3));
    let is_limit = |error: &Error| {
        matches!(error, Error::UnitTooLong { .. } | Error::TooDeep { .. } | Error::Malformed { .. })
    };
    assert!(error.as_ref().is_none_or(is_limit), "{what}: {error:?}");
    error.is_none()
}

#[test]
fn splitters_accept_extreme_limits() {
    for bytes_max in SIZES {
        let large = bytes_max >= UNIT_BYTES_MAX;
        for cap in [Cap::error(bytes_max), Cap::split(bytes_max)] {
            let is_any = large || cap.overflow() == Overflow::Split;
            let all: [(Box<dyn Splitter>, &str); 7] = [
                (Box::new(Lines::new(cap)), "lines"),
                (Box::new(Paragraphs::new(cap)), "paragraphs"),
                (Box::new(Sentences::new(cap)), "sentences"),
                (Box::new(Fences::new(cap)), "fences"),
                (Box::new(Files::new(cap)), "files"),
                (Box::new(Delimited::new(b"\n", cap)), "delimited"),
                (Box::new(Delimited::new(b"", cap)), "empty delimiter"),
            ];
            for (splitter, what) in all {
                assert_eq!(is_accepted(splitter, what), is_any, "{what}, {cap:?}");
            }
        }
        is_accepted(Sse::new(bytes_max), "events");
        for depth_max in SIZES {
            let (found, error) = units(Json::new(bytes_max, depth_max), [&b"[[1],2] 3 "[..]]);
            let is_deep = matches!(error, Some(Error::TooDeep { depth_max: max, .. }) if max == depth_max);
            let is_long = matches!(error, Some(Error::UnitTooLong { .. }));
            assert_eq!((is_deep, is_long), (depth_max < 2, depth_max >= 2 && !large), "{error:?}");
            assert_eq!(found.len(), if is_deep || is_long { 0 } else { 2 });

            let mut partial = PartialJson::new(bytes_max, depth_max);
            let pushed = partial.push(b"[[1],2]");
            assert_eq!(pushed.is_ok(), bytes_max > 6 && depth_max > 1, "{pushed:?}");
        }
    }
    let (found, _) = units(Delimited::new(b"", Cap::default()), [INPUT]);
    assert_eq!((found.len(), &found[0].bytes[..]), (1, INPUT), "it is one record");
}

#[test]
fn sequence_numbers_accept_extreme_values() {
    for first in [0, 1, u64::MAX - 1, u64::MAX] {
        let mut splitting = BufferedSplitter::new(Lines::default()).starting_at(first);
        let batch = splitting.feed("a\nb\nc\n".into()).unwrap().unwrap();
        let found: Vec<_> = batch.iter().map(|unit| unit.sequence()).collect();
        let expected: Vec<_> = (0..3).map(|i| first.saturating_add(i)).collect();
        assert_eq!((found, splitting.next_sequence()), (expected, first.saturating_add(3)));
    }
}

fn chunks() -> impl futures_util::Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    stream::iter(["a\nb", "\nc\n"].map(|text| Ok(Bytes::from(text))))
}

#[tokio::test(start_paused = true)]
async fn limits_and_budgets_accept_extreme_values() {
    let times = [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::MAX)];
    for stream_bytes_max in [None, Some(0), Some(1), Some(u64::MAX)] {
        for first_byte in times {
            for idle in times {
                for total in times {
                    let limits = Limits { stream_bytes_max, first_byte, idle, total };
                    // The second chunk arrives after one second.
                    let slow = chunks().then(|chunk| async {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        chunk
                    });
                    let mut pull = Pull::new(slow, Lines::default()).with_limits(limits);
                    let mut units = 0;
                    let mut error = None;
                    while let Some(batch) = pull.next().await {
                        match batch {
                            Ok(batch) => units += batch.len(),
                            Err(failed) => error = Some(failed),
                        }
                    }
                    let is_limited =
                        |limit: Option<Duration>| limit.is_some_and(|limit| limit < Duration::MAX);
                    let is_late = is_limited(total) || is_limited(idle) || is_limited(first_byte);
                    let is_long = stream_bytes_max.is_some_and(|max| max < 6);
                    assert_eq!(error.is_some(), is_late || is_long, "{limits:?}: {error:?}");
                    assert!(error.is_some() || units == 3, "{limits:?}");
                }
            }
        }
    }
    for bytes_max in SIZES {
        for share in SIZES {
            let budget = Budget::new(bytes_max).share(share);
            let batches: Vec<_> = Pull::new(chunks(), Lines::default())
                .with_budget(budget)
                .map(|batch| batch.unwrap().len())
                .collect()
                .await;
            assert_eq!(batches.iter().sum::<usize>(), 3, "{bytes_max} {share}");
        }
    }
}

#[tokio::test]
async fn queues_accept_extreme_sizes() {
    for queue_max in [0, 1, usize::MAX] {
        let policies: [SubscriberPolicy<u32>; 4] = [
            SubscriberPolicy::Wait { queue_max },
            SubscriberPolicy::DropOldest { queue_max },
            SubscriberPolicy::coalesce(queue_max, |last, value| *last += value),
            SubscriberPolicy::Newest,
        ];
        for policy in policies {
            let fanout = Fanout::new();
            let mut values = fanout.subscribe(policy);
            // Zero counts as one.
            fanout.publish(1).await;
            assert_eq!(values.try_next(), Some(1), "{queue_max}");
            drop(fanout);
            assert_eq!(values.next().await, None);
        }
    }
}

/// A source that breaks once, after its first chunk. The next attempt may repeat this many units.
#[derive(Debug)]
struct Overlapping(usize);

#[async_trait::async_trait]
impl Source for Overlapping {
    async fn open(&self, at: &Position) -> Result<Opened, OpenError> {
        if at.sequence == 0 {
            return Ok(Opened::new(chunks().take(1), ResumeStrategy::Start));
        }
        Ok(Opened::new(chunks(), ResumeStrategy::Overlap { units_max: self.0 }))
    }
}

#[tokio::test(start_paused = true)]
async fn overlaps_accept_extreme_sizes() {
    for (overlap_units_max, units_max) in
        [0, 1, usize::MAX].into_iter().flat_map(|a| [0, 1, usize::MAX].map(|b| (a, b)))
    {
        let options = ResumeOptions { overlap_units_max, ..ResumeOptions::default() };
        let mut response = Resume::new(
            Arc::new(Overlapping(units_max)),
            0,
            |_: &Position| Lines::default(),
            |unit| unit.bytes() == "c",
        )
        .with_options(options);
        let mut deliveries = 0;
        while let Some(delivery) = response.next().await {
            delivery.unwrap();
            deliveries += 1;
        }
        assert!(deliveries > 0);
    }
}

/// A source that delivers one new line per attempt, and then breaks.
#[derive(Debug)]
struct OneLineEach;

#[async_trait::async_trait]
impl Source for OneLineEach {
    async fn open(&self, at: &Position) -> Result<Opened, OpenError> {
        let line = if at.sequence < 6 { "line\n" } else { "last\n" };
        Ok(Opened::new(stream::iter([Ok::<_, BoxError>(Bytes::from(line))]), ResumeStrategy::Next))
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited_to_any_number() {
    for (attempts_total_max, expected) in [(0, 1), (1, 1), (3, 3), (7, 7), (u32::MAX, 7)] {
        let options = ResumeOptions { attempts_total_max, ..ResumeOptions::default() };
        let mut response = Resume::new(
            Arc::new(OneLineEach),
            0,
            |_: &Position| Lines::default(),
            |unit| unit.bytes() == "last",
        )
        .with_options(options);
        let (mut units, mut is_broken) = (0, false);
        while let Some(delivery) = response.next().await {
            match delivery {
                Ok(greenwave_streaming::Delivery::Units { batch, .. }) => units += batch.len(),
                Ok(_) => {}
                Err(_) => is_broken = true,
            }
        }
        assert_eq!((units, is_broken), (expected, expected < 7), "{attempts_total_max}");
    }
}
