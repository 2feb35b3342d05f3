//! Records delivered units in a directory, so that a killed process can resume its responses. The
//! files are a greenwave-segment log; `docs/formats/journal.md` in the repository specifies the
//! records.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use greenwave_segment::{Log, Options, WriteBatch};

use crate::cut::{Cut, Cuts};
use crate::error::Error;
use crate::layout::UnitKind;
use crate::unit::{Unit, UnitBatch};

const TURN: &[u8] = b"turn/";
const UNITS: &[u8] = b"units/";
/// Version of the records, which is their first byte.
const VERSION: u8 = 1;

const COMPLETE: u8 = 1;
const CONTINUED: u8 = 2;
const HAS_LABEL: u8 = 4;
const HAS_NOTE: u8 = 8;

/// A journal of responses in a directory. Threads and processes may share it, as long as each
/// response has one reader at a time. A reader that takes over a response sees everything that the
/// previous one recorded.
///
/// A record survives the end of the process, including SIGKILL, as soon as it is written, which
/// happens before its units are delivered. It survives a power cut after [`flush`](Self::flush); of
/// later records, a prefix survives. Records are written to the system's page cache on the calling
/// thread, which takes microseconds.
#[derive(Debug)]
pub struct Journal {
    log: Log,
    dir: PathBuf,
}

/// An iterator over the recorded batches of a response.
#[derive(Debug)]
pub(crate) struct Replay {
    attempt: u32,
    keys: std::vec::IntoIter<Vec<u8>>,
    /// Number of the next unit.
    sequence: u64,
}

impl Replay {
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl Journal {
    /// Opens the journal in `dir`, which is created if it does not exist.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        Self::on(Log::open(dir, Options::default()), dir)
    }

    /// Opens a journal for a process of a simulated machine. Otherwise like [`open`](Self::open).
    ///
    /// # Errors
    /// [`Error::Journal`].
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        process: &greenwave_segment::simulation::Process,
        dir: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        use greenwave_segment::simulation::clock;
        let options = Options { clock, segment_bytes_max: 4096, ..Options::default() };
        Self::on(Log::open_simulated(process, &dir, options), dir.as_ref())
    }

    fn on(log: Result<Log, greenwave_segment::Error>, dir: &Path) -> Result<Self, Error> {
        let dir = dir.to_owned();
        match log {
            Ok(log) => Ok(Self { log, dir }),
            Err(source) => Err(Error::Journal { operation: "open", dir, source: source.into() }),
        }
    }

    /// Removes a response whose units are no longer needed.
    ///
    /// # Errors
    /// [`Error::Journal`]; the response is still recorded then.
    pub fn remove(&self, turn: u64) -> Result<(), Error> {
        self.refresh()?;
        let superseded = self.log.keys_with_prefix(&[UNITS, &turn.to_be_bytes()].concat());
        let batch = superseded.iter().fold(WriteBatch::new(), |batch, key| batch.remove(key));
        let batch = batch.remove(&[TURN, &turn.to_be_bytes()].concat());
        self.log.write(&batch).map(drop).map_err(self.failed("remove from"))
    }

    /// Makes all records so far survive a power cut, including those of a killed process whose
    /// responses were taken over.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn flush(&self) -> Result<(), Error> {
        self.log.flush_shared().map_err(self.failed("flush"))
    }

    pub(crate) fn replay(&self, turn: u64) -> Result<Replay, Error> {
        self.refresh()?;
        let attempt =
            match self.log.get(&[TURN, &turn.to_be_bytes()].concat()).map_err(self.failed("read"))? {
                Some(record) => attempt_of(&record).ok_or_else(|| self.unreadable())?,
                None => 0,
            };
        let mut keys = self.log.keys_with_prefix(&prefix(turn, attempt));
        keys.sort_unstable();
        Ok(Replay { attempt, keys: keys.into_iter(), sequence: 0 })
    }

    /// Returns the next recorded batch.
    pub(crate) fn next(&self, replay: &mut Replay) -> Result<Option<UnitBatch>, Error> {
        let Some(key) = replay.keys.next() else { return Ok(None) };
        let first_seq = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        if first_seq != Some(replay.sequence) {
            // A power cut lost an earlier record. The records after the gap would collide with new
            // ones.
            let after_gap: Vec<Vec<u8>> = std::iter::once(key).chain(replay.keys.by_ref()).collect();
            let after_gap: Vec<&[u8]> = after_gap.iter().map(Vec::as_slice).collect();
            self.log.remove_many(&after_gap).map_err(self.failed("remove from"))?;
            return Ok(None);
        }
        let record = self.log.get(&key).map_err(self.failed("read"))?;
        let batch = record.and_then(|record| decode(record, replay.sequence));
        let batch = batch.ok_or_else(|| self.unreadable())?;
        replay.sequence += batch.len() as u64;
        Ok(Some(batch))
    }

    pub(crate) fn append(&self, turn: u64, attempt: u32, batch: &UnitBatch) -> Result<(), Error> {
        let key = [&prefix(turn, attempt)[..], &batch.first_sequence().to_be_bytes()].concat();
        self.log.put(&key, &encode(batch)).map_err(self.failed("append to"))
    }

    /// Starts a new attempt and removes the units of the previous one.
    pub(crate) fn supersede(&self, turn: u64, attempt: u32) -> Result<(), Error> {
        let record = [&[VERSION][..], &attempt.to_le_bytes()].concat();
        let superseded = self.log.keys_with_prefix(&[UNITS, &turn.to_be_bytes()].concat());
        // In one batch: the units of the previous attempt must exist as long as it is current.
        let batch = WriteBatch::new().put(&[TURN, &turn.to_be_bytes()].concat(), &record);
        let batch = superseded.iter().fold(batch, |batch, key| batch.remove(key));
        self.log.write(&batch).map(drop).map_err(self.failed("append to"))
    }

    fn refresh(&self) -> Result<(), Error> {
        self.log.refresh_if_stale().map(drop).map_err(self.failed("read"))
    }

    fn unreadable(&self) -> Error {
        let source = "a record is damaged or of a newer version".into();
        Error::Journal { operation: "read", dir: self.dir.clone(), source }
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(greenwave_segment::Error) -> Error + use<> {
        let dir = self.dir.clone();
        move |source| Error::Journal { operation, dir, source: source.into() }
    }
}

fn prefix(turn: u64, attempt: u32) -> Vec<u8> {
    [UNITS, &turn.to_be_bytes(), &attempt.to_be_bytes()].concat()
}

fn attempt_of(record: &[u8]) -> Option<u32> {
    let (version, attempt) = record.split_first()?;
    (*version == VERSION).then(|| attempt.try_into().ok().map(u32::from_le_bytes)).flatten()
}

fn encode(batch: &UnitBatch) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_u32_le(batch.len() as u32);
    batch.iter().for_each(|unit| encode_unit(&unit, &mut out));
    out
}

fn encode_unit(unit: &Unit<'_>, out: &mut Vec<u8>) {
    let (label, note) = unit.labels();
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let (code, other) = code_of(unit.kind());
    out.push(
        flag(unit.is_complete(), COMPLETE)
            | flag(unit.is_continued(), CONTINUED)
            | flag(label.is_some(), HAS_LABEL)
            | flag(note.is_some(), HAS_NOTE),
    );
    out.push(code);
    out.put_u16_le(other);
    for text in
        [label.map(str::as_bytes), note.map(str::as_bytes), Some(&unit.content())].into_iter().flatten()
    {
        out.put_u32_le(text.len() as u32);
        out.extend_from_slice(text);
    }
}

/// Returns the code of a kind, and the number of [`UnitKind::Other`].
fn code_of(kind: UnitKind) -> (u8, u16) {
    match kind {
        UnitKind::Line => (0, 0),
        UnitKind::Record => (1, 0),
        UnitKind::Code => (2, 0),
        UnitKind::File => (3, 0),
        UnitKind::Json => (4, 0),
        UnitKind::Event => (5, 0),
        UnitKind::Paragraph => (6, 0),
        UnitKind::Sentence => (7, 0),
        UnitKind::Edit => (8, 0),
        UnitKind::Diff => (9, 0),
        UnitKind::Ambiguous => (10, 0),
        UnitKind::Other(number) => (255, number),
    }
}

fn kind_of(code: u8, other: u16) -> Option<UnitKind> {
    Some(match code {
        0 => UnitKind::Line,
        1 => UnitKind::Record,
        2 => UnitKind::Code,
        3 => UnitKind::File,
        4 => UnitKind::Json,
        5 => UnitKind::Event,
        6 => UnitKind::Paragraph,
        7 => UnitKind::Sentence,
        8 => UnitKind::Edit,
        9 => UnitKind::Diff,
        10 => UnitKind::Ambiguous,
        255 => UnitKind::Other(other),
        _ => return None,
    })
}

/// Decodes a record. Returns `None` if it is damaged or of another version.
fn decode(mut record: Bytes, first_seq: u64) -> Option<UnitBatch> {
    let whole = record.clone();
    (record.try_get_u8().ok()? == VERSION).then_some(())?;
    let units = record.try_get_u32_le().ok()?;
    let mut cuts = Cuts::default();
    for _ in 0..units {
        cuts.push(decode_unit(&whole, &mut record)?);
    }
    (units > 0 && record.is_empty()).then(|| UnitBatch::recorded(whole, cuts, first_seq))
}

fn decode_unit(whole: &Bytes, record: &mut Bytes) -> Option<Cut> {
    let flags = record.try_get_u8().ok()?;
    let (code, other) = (record.try_get_u8().ok()?, record.try_get_u16_le().ok()?);
    let kind = kind_of(code, other)?;
    let is_written =
        flags & !(COMPLETE | CONTINUED | HAS_LABEL | HAS_NOTE) == 0 && code_of(kind) == (code, other);
    is_written.then_some(())?;
    let mut text = || {
        let length = record.try_get_u32_le().ok()? as usize;
        let start = whole.len() - record.len();
        (length <= record.len()).then(|| record.advance(length))?;
        Some(start..start + length)
    };
    let mut optional = |flag: u8| {
        if flags & flag == 0 {
            return Some(None);
        }
        // An empty label is written as none.
        text()
            .filter(|label| !label.is_empty() && std::str::from_utf8(&whole[label.clone()]).is_ok())
            .map(Some)
    };
    let (label, note) = (optional(HAS_LABEL)?, optional(HAS_NOTE)?);
    let cut = Cut::new(kind, text()?).with_path(label).with_info(note);
    let cut = cut.continued(flags & CONTINUED != 0);
    Some(if flags & COMPLETE != 0 { cut } else { cut.incomplete() })
}

/// Decodes arbitrary bytes and checks that encoding the result yields the same bytes.
#[cfg(feature = "conformance")]
pub(crate) fn check_record(record: &[u8]) {
    if let Some(batch) = decode(Bytes::copy_from_slice(record), 0) {
        assert_eq!(encode(&batch), record);
    }
    let _ = attempt_of(record);
}

#[cfg(test)]
mod tests;
