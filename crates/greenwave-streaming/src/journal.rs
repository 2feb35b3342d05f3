//! What was handed on of each answer, in a folder, so that a process that is killed can go on. Unaware of sources and readers, and without a
//! format of files of its own: it is a greenwave-segment log. `docs/journal-format.md` of the repository describes the records to the byte.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use greenwave_segment::{Log, Options};

use crate::error::Error;
use crate::splitter::{Cut, Cuts};
use crate::unit::{Kind, Unit, UnitBatch};

const TURN: &[u8] = b"turn/";
const UNITS: &[u8] = b"units/";
/// The version of the records, which is their first byte.
const VERSION: u8 = 1;

const COMPLETE: u8 = 1;
const CONTINUED: u8 = 2;
const HAS_LABEL: u8 = 4;
const HAS_NOTE: u8 = 8;

/// Records of answers in a folder, which threads and processes may share, as long as each answer has one reader.
///
/// A record survives the end of the process, SIGKILL included, from when it was written on, which is before its units are handed on. It
/// survives a power cut after [`flush`](Self::flush). Writing goes to the system's cache and takes microseconds; it is done in place.
#[derive(Debug)]
pub struct Journal {
    log: Log,
    dir: PathBuf,
}

/// The recorded batches of an answer, to be read one by one.
#[derive(Debug)]
pub(crate) struct Replay {
    attempt: u32,
    keys: std::vec::IntoIter<Vec<u8>>,
}

impl Replay {
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl Journal {
    /// Opens the journal in a folder, which is made if need be.
    ///
    /// # Errors
    /// [`Error::Journal`], as for every call here.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_owned();
        match Log::open(&dir, Options::default()) {
            Ok(log) => Ok(Self { log, dir }),
            Err(source) => Err(Error::Journal { operation: "open", dir, source: source.into() }),
        }
    }

    /// Forgets an answer, whose units nobody will ask for again.
    ///
    /// # Errors
    /// [`Error::Journal`]; what is left of the answer is then a beginning of it or nothing.
    pub fn forget(&self, turn: u64) -> Result<(), Error> {
        // The last ones first: what is left after a crash has no gap.
        let mut keys = self.log.keys_with_prefix(&[UNITS, &turn.to_be_bytes()].concat());
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.push([TURN, &turn.to_be_bytes()].concat());
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.log.remove_many(&keys).map_err(self.failed("remove from"))?;
        Ok(())
    }

    /// Makes what was recorded so far survive a power cut.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn flush(&self) -> Result<(), Error> {
        self.log.flush().map_err(self.failed("flush"))
    }

    pub(crate) fn replay(&self, turn: u64) -> Result<Replay, Error> {
        let attempt =
            match self.log.get(&[TURN, &turn.to_be_bytes()].concat()).map_err(self.failed("read"))? {
                Some(record) => attempt_of(&record).ok_or_else(|| self.unreadable())?,
                None => 0,
            };
        let mut keys = self.log.keys_with_prefix(&prefix(turn, attempt));
        keys.sort_unstable();
        Ok(Replay { attempt, keys: keys.into_iter() })
    }

    /// The next recorded batch.
    pub(crate) fn next(&self, replay: &mut Replay) -> Result<Option<UnitBatch>, Error> {
        let Some(key) = replay.keys.next() else { return Ok(None) };
        let record = self.log.get(&key).map_err(self.failed("read"))?;
        let first_seq = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let batch = first_seq.zip(record).and_then(|(first_seq, record)| decode(record, first_seq));
        batch.map(Some).ok_or_else(|| self.unreadable())
    }

    pub(crate) fn append(&self, turn: u64, attempt: u32, batch: &UnitBatch) -> Result<(), Error> {
        let key = [&prefix(turn, attempt)[..], &batch.first_sequence().to_be_bytes()].concat();
        self.log.put(&key, &encode(batch)).map_err(self.failed("append to"))
    }

    /// From here on, the units of `turn` are those of `attempt`.
    pub(crate) fn supersede(&self, turn: u64, attempt: u32) -> Result<(), Error> {
        let record = [&[VERSION][..], &attempt.to_le_bytes()].concat();
        let void = self.log.keys_with_prefix(&[UNITS, &turn.to_be_bytes()].concat());
        let void: Vec<&[u8]> = void.iter().map(Vec::as_slice).collect();
        self.log
            .put(&[TURN, &turn.to_be_bytes()].concat(), &record)
            .and_then(|()| self.log.remove_many(&void))
            .map_err(self.failed("append to"))?;
        Ok(())
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

/// A kind as one byte, and the number of a kind from outside.
fn code_of(kind: Kind) -> (u8, u16) {
    match kind {
        Kind::Line => (0, 0),
        Kind::Record => (1, 0),
        Kind::Code => (2, 0),
        Kind::File => (3, 0),
        Kind::Json => (4, 0),
        Kind::Event => (5, 0),
        Kind::Paragraph => (6, 0),
        Kind::Sentence => (7, 0),
        Kind::Edit => (8, 0),
        Kind::Diff => (9, 0),
        Kind::Refused => (10, 0),
        Kind::Other(number) => (255, number),
    }
}

fn kind_of(code: u8, other: u16) -> Option<Kind> {
    Some(match code {
        0 => Kind::Line,
        1 => Kind::Record,
        2 => Kind::Code,
        3 => Kind::File,
        4 => Kind::Json,
        5 => Kind::Event,
        6 => Kind::Paragraph,
        7 => Kind::Sentence,
        8 => Kind::Edit,
        9 => Kind::Diff,
        10 => Kind::Refused,
        255 => Kind::Other(other),
        _ => return None,
    })
}

/// The batch of a record; `None` if it is damaged or of another version.
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
    let mut text = || {
        let length = record.try_get_u32_le().ok()? as usize;
        let start = whole.len() - record.len();
        (length <= record.len()).then(|| record.advance(length))?;
        Some(start..start + length)
    };
    let mut optional = |flag: u8| if flags & flag != 0 { text().map(Some) } else { Some(None) };
    let (label, note) = (optional(HAS_LABEL)?, optional(HAS_NOTE)?);
    let cut = Cut::new(kind_of(code, other)?, text()?).with_path(label).with_info(note);
    let cut = cut.continued(flags & CONTINUED != 0);
    Some(if flags & COMPLETE != 0 { cut } else { cut.incomplete() })
}

#[cfg(test)]
mod tests;
