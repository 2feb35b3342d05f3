//! A thorough check.

use std::fmt;
use std::path::PathBuf;

use crate::Error;
use crate::error::unless_gone;
use crate::format;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::Refresher;
use crate::scan::{self, SegmentPart};

/// What [`Log::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Segments that were read.
    pub segments: u64,
    /// Records in them that verify, superseded ones included.
    pub records: u64,
    /// Values that were read.
    pub values: u64,
    /// Everything that is not as it was written, in the order of the files.
    pub problems: Vec<Problem>,
}

impl CheckReport {
    /// Whether no value is lost for sure: a torn end and files of others are no damage.
    pub fn is_intact(&self) -> bool {
        self.problems.iter().all(|problem| !problem.kind.is_damage())
    }
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, or the directory for what is about a key.
    pub path: PathBuf,
    /// Where in the file, in bytes, if it is about a place.
    pub offset: Option<u64>,
    /// What it is.
    pub kind: ProblemKind,
}

/// What [`Log::check`] may find.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The header of a segment is damaged. Its records can be read; nobody appends to it any more.
    SegmentHeader,
    /// A record whose key is known and whose value is damaged. The key has no value if this is its newest record.
    DamagedRecord {
        /// The key.
        key: Vec<u8>,
    },
    /// Bytes that are no record, in the middle of a segment or where it is sealed. Which keys stood there is not known, unless an
    /// index file names them: one of them may show an older value.
    UnknownBytes {
        /// How many.
        len: u64,
    },
    /// The end of a segment that is not sealed: a write that was interrupted, or is under way. Nothing flushed is in it.
    TornEnd {
        /// How many bytes.
        len: u64,
    },
    /// A segment is gone and its index file is left. The keys that it names, and no other segment has, are without a value.
    MissingSegment,
    /// The newest record of a key is known of and gone.
    LostValue {
        /// The key.
        key: Vec<u8>,
    },
    /// A value is stored as a difference from one that is gone.
    UnreadableValue {
        /// The key.
        key: Vec<u8>,
    },
    /// A file or directory that is no part of a log. It is left alone.
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
            ProblemKind::UnknownBytes { len } => write!(f, ": {len} bytes are no record"),
            ProblemKind::TornEnd { len } => write!(f, ": a write of {len} bytes was interrupted"),
            ProblemKind::MissingSegment => write!(f, ": the segment of this index file is gone"),
            ProblemKind::LostValue { key } => {
                write!(f, ": the newest value of `{}` is gone", key.escape_ascii())
            }
            ProblemKind::UnreadableValue { key } => {
                write!(f, ": `{}` is stored as a difference from a value that is gone", key.escape_ascii())
            }
            ProblemKind::Stray => write!(f, ": no part of a log"),
        }
    }
}

/// Checks a log.
#[derive(Clone, Copy)]
pub(crate) struct Checker<'a> {
    inner: &'a Inner,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// Reads every byte of every segment and every value, and reports what is not as it was written. Changes nothing. Other
    /// processes may go on meanwhile; what they are just writing is reported as a torn end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn check(&self) -> Result<CheckReport, Error> {
        Refresher::new(self.inner).refresh()?;
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
            let there = index.entries().filter(|entry| entry.lost || !entry.tombstone);
            there.map(|entry| (entry.key.as_slice().to_vec(), entry.lost)).collect()
        };
        keys.sort_unstable();
        for (key, lost) in keys {
            let kind = if lost {
                ProblemKind::LostValue { key }
            } else if !Reader::new(self.inner).is_readable(&key)? {
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
