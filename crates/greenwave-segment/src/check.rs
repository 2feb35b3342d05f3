//! Checks a log completely: every byte of every segment, every value, every file in the directory.

use std::fmt;
use std::path::PathBuf;

use crate::Error;
use crate::error::unless_gone;
use crate::format::{self, SEGMENT_HEADER_BYTES};
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::Refresher;
use crate::scan::{self, SegmentPart};
use crate::unread::Unread;

/// Result of [`Log::check`](crate::Log::check).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Number of segments that were read.
    pub segments: u64,
    /// Number of records in them that verify, superseded ones included.
    pub records: u64,
    /// Number of values that were read.
    pub values: u64,
    /// All problems, in the order of the files.
    pub problems: Vec<Problem>,
}

impl CheckReport {
    /// Returns whether no problem means a lost value. Torn ends and stray files are not damage.
    pub fn is_intact(&self) -> bool {
        self.problems.iter().all(|problem| !problem.kind.is_damage())
    }
}

/// A problem found by [`Log::check`](crate::Log::check).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file; the log's directory if the problem concerns a key.
    pub path: PathBuf,
    /// Offset in the file, in bytes, if the problem has one.
    pub offset: Option<u64>,
    /// Kind of problem.
    pub kind: ProblemKind,
}

/// Kinds of problems that [`Log::check`](crate::Log::check) reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The header of a segment is damaged. Its records can be read, but no process appends to it.
    SegmentHeader,
    /// The value of a record is damaged but its key is readable. If this is the newest record of
    /// the key, the key has no value.
    DamagedRecord {
        /// The key.
        key: Vec<u8>,
    },
    /// Bytes in the middle of a segment, or in a sealed one, are not a record. Their keys are
    /// unknown unless an index file names them, so a key may show an older value.
    UnknownBytes {
        /// Number of bytes.
        len: u64,
    },
    /// The end of an unsealed segment is not a record: a write that was interrupted or is in
    /// progress. It contains nothing that was flushed.
    TornEnd {
        /// Number of bytes.
        len: u64,
    },
    /// A segment is missing but its index file exists. Keys whose newest record was in it have no
    /// value.
    MissingSegment,
    /// The newest record of a key is missing.
    LostValue {
        /// The key.
        key: Vec<u8>,
    },
    /// A value is stored as a delta from a value that is missing.
    UnreadableValue {
        /// The key.
        key: Vec<u8>,
    },
    /// A file or directory that does not belong to a log. It is left alone.
    Stray,
}

impl ProblemKind {
    fn is_damage(&self) -> bool {
        !matches!(self, Self::TornEnd { .. } | Self::Stray)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        match &self.kind {
            ProblemKind::SegmentHeader => write!(f, ": the segment's header is damaged"),
            ProblemKind::DamagedRecord { key } => {
                write!(f, ": the value of `{}` is damaged", key.escape_ascii())
            }
            ProblemKind::UnknownBytes { len } => write!(f, ": {len} bytes are not a record"),
            ProblemKind::TornEnd { len } => write!(f, ": a write of {len} bytes was interrupted"),
            ProblemKind::MissingSegment => write!(f, ": the segment of this index file is missing"),
            ProblemKind::LostValue { key } => {
                write!(f, ": the newest value of `{}` is missing", key.escape_ascii())
            }
            ProblemKind::UnreadableValue { key } => {
                write!(f, ": `{}` is a delta from a value that is missing", key.escape_ascii())
            }
            ProblemKind::Stray => write!(f, ": not part of a log"),
        }
    }
}

/// Checks a log.
#[derive(Clone, Copy)]
pub(crate) struct Checker<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
    reader: Reader<'a>,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, refresher: Refresher::new(inner), reader: Reader::new(inner) }
    }

    /// Checks every segment, value and file; see [`Log::check`](crate::Log::check).
    pub(crate) fn check(&self) -> Result<CheckReport, Error> {
        self.refresher.refresh()?;
        Unread::new(self.inner).load_all()?;
        let mut checked = CheckReport::default();
        let slots: Vec<_> = {
            let index = self.inner.index.read();
            let mut slots: Vec<_> =
                index.slots().map(|(_, slot)| (slot.segment.clone(), slot.sealed, slot.orphan)).collect();
            slots.sort_by_key(|(segment, ..)| segment.id);
            slots
        };
        for (segment, sealed, orphan) in slots {
            let mut problem = |offset, kind| {
                let path = if orphan { format::index_path(&segment.path) } else { segment.path.clone() };
                checked.problems.push(Problem { path, offset, kind });
            };
            if orphan {
                problem(None, ProblemKind::MissingSegment);
                continue;
            }
            let Some(len) = unless_gone(segment.len())? else { continue };
            if len >= SEGMENT_HEADER_BYTES && !segment.check_header()? {
                problem(Some(0), ProblemKind::SegmentHeader);
            }
            let mut records = 0;
            scan::inspect(&segment, len, |offset, part| match part {
                SegmentPart::Record => records += 1,
                SegmentPart::Damaged(found) => {
                    let key = found.key.as_slice().to_vec();
                    problem(Some(offset), ProblemKind::DamagedRecord { key });
                }
                SegmentPart::Unknown(end) if end == len && !sealed => {
                    problem(Some(offset), ProblemKind::TornEnd { len: end - offset });
                }
                SegmentPart::Unknown(end) => {
                    problem(Some(offset), ProblemKind::UnknownBytes { len: end - offset });
                }
            })?;
            checked.segments += 1;
            checked.records += records;
        }
        self.check_values(&mut checked)?;
        self.check_files(&mut checked)?;
        Ok(checked)
    }

    fn check_values(&self, checked: &mut CheckReport) -> Result<(), Error> {
        let mut keys: Vec<(Vec<u8>, bool)> = {
            let index = self.inner.index.read();
            let values = index.entries().filter(|entry| entry.lost || !entry.tombstone);
            values.map(|entry| (entry.key.as_slice().to_vec(), entry.lost)).collect()
        };
        keys.sort_unstable();
        for (key, lost) in keys {
            let kind = if lost {
                ProblemKind::LostValue { key }
            } else if !self.reader.is_readable(&key)? {
                ProblemKind::UnreadableValue { key }
            } else {
                checked.values += 1;
                continue;
            };
            checked.problems.push(Problem { path: self.inner.dir.clone(), offset: None, kind });
        }
        Ok(())
    }

    fn check_files(&self, checked: &mut CheckReport) -> Result<(), Error> {
        for name in self.inner.disk.all_names(&self.inner.dir).map_err(Error::io("list", &self.inner.dir))? {
            if !format::is_log_file(&name) {
                let path = self.inner.dir.join(name);
                checked.problems.push(Problem { path, offset: None, kind: ProblemKind::Stray });
            }
        }
        Ok(())
    }
}
