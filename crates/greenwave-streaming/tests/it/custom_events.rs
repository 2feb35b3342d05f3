//! Tests what a splitter of a custom event format uses: labels of cuts, owned units, and the size
//! of the buffer.

use std::ops::Range;

use bytes::Bytes;
use greenwave_streaming::{BufferedSplitter, Cut, Cuts, OwnedUnit, SplitError, Splitter, UnitKind};

/// Splits lines of the form `TYPE ID TEXT`. An event without an id has that of the last event that
/// had one.
#[derive(Debug, Default)]
struct Events {
    last_id: Bytes,
}

fn not_empty(range: Range<usize>) -> Option<Range<usize>> {
    (!range.is_empty()).then_some(range)
}

impl Splitter for Events {
    fn scan(&mut self, window: &[u8], _fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        out.carry(self.last_id.clone());
        while let Some(length) = window[start..].iter().position(|byte| *byte == b'\n') {
            let line = &window[start..start + length];
            let mut spaces = (start..).zip(line).filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
            let (Some(first), Some(second)) = (spaces.next(), spaces.next()) else { break };
            let cut = Cut::new(UnitKind::Event, second + 1..start + length);
            let cut = cut.with_event(not_empty(start..first));
            let id = not_empty(first + 1..second);
            out.push(match id.clone() {
                None if self.last_id.is_empty() => cut,
                None => cut.with_carried_id(),
                id => cut.with_id(id),
            });
            if let Some(id) = id {
                self.last_id = Bytes::copy_from_slice(&window[id]);
            }
            start += length + 1;
        }
        Ok(start)
    }

    fn finish(&mut self, _: &[u8], _: &mut Cuts) -> Result<(), SplitError> {
        Ok(())
    }
}

#[test]
fn events_have_their_type_and_the_last_id() {
    let mut events = BufferedSplitter::new(Events::default());
    let mut seen = Vec::new();
    for chunk in ["  none\ncall 1 a\n", "  b\nca", "ll 2 c\n"] {
        let Some(batch) = events.feed(chunk.into()).unwrap() else { continue };
        for unit in batch.iter() {
            let text = unit.text().unwrap().into_owned();
            seen.push((unit.event().map(str::to_owned), unit.id().map(str::to_owned), text));
        }
    }
    let event = |kind: &str, id: Option<&str>, text: &str| {
        (Some(kind.to_owned()), id.map(str::to_owned), text.to_owned())
    };
    let expected = [
        event("message", None, "none"),
        event("call", Some("1"), "a"),
        event("message", Some("1"), "b"),
        event("call", Some("2"), "c"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn the_buffer_holds_the_bytes_of_the_open_unit_only() {
    let mut events = BufferedSplitter::new(Events::default());
    for (chunk, buffered) in [("call 1 a", 8), ("bc", 10), ("\nca", 2), ("ll 2 d\n", 0)] {
        events.feed(chunk.into()).unwrap();
        assert_eq!(events.buffered_bytes(), buffered, "after {chunk:?}");
    }
}

#[test]
fn an_owned_unit_outlives_its_batch() {
    let mut events = BufferedSplitter::new(Events::default());
    let batch = events.feed("call 1 first\ncall 2 second\n".into()).unwrap().unwrap();
    let kept: OwnedUnit = batch.get(1).unwrap().to_owned_unit();
    drop((batch, events));
    let kept = std::thread::spawn(move || (kept.get().id().map(str::to_owned), kept.get().bytes()));
    assert_eq!(kept.join().unwrap(), (Some("2".to_owned()), Bytes::from("second")));
}
