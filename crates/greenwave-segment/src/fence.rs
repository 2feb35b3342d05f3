//! Keeps a record on the disk while a difference from it is being written: differences are written, and removals of segments announced, by one
//! process at a time. Knows nothing of records.
//!
//! The file `fence` in the log's directory is locked meanwhile (`flock` on Unix), which the system undoes when a process dies. Its eight bytes
//! are a mark that changes whenever a removal is announced, so that a writer of differences knows whether it has to look again before it
//! relies on what it has seen. They mean nothing else, need not reach the disk, and may be anything after a power cut.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::Error;
use crate::segment::random_id;

/// Longer than others write differences, and far shorter than a compaction may take.
const WAIT_MAX: Duration = Duration::from_millis(2);
const WAIT_STEP: Duration = Duration::from_micros(50);

/// The file, opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Fence {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    /// The mark when we last looked at the whole log. `None` before that.
    seen: Option<[u8; 8]>,
}

/// Being inside. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    state: MutexGuard<'a, State>,
    path: &'a Path,
    mark: [u8; 8],
}

impl Fence {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { path: dir.join("fence"), state: Mutex::default() }
    }

    /// Waits for its turn, but not for long: `None` if that does not come.
    pub(crate) fn enter_soon(&self) -> Result<Option<Inside<'_>>, Error> {
        let Some(mut state) = self.state.try_lock_for(WAIT_MAX) else { return Ok(None) };
        let mark = try_lock(&self.path, &mut state).map_err(Error::io("lock", &self.path))?;
        Ok(mark.map(|mark| Inside { state, path: &self.path, mark }))
    }

    /// Waits for its turn, among threads and among processes.
    pub(crate) fn enter(&self) -> Result<Inside<'_>, Error> {
        let mut state = self.state.lock();
        let mark = lock(&self.path, &mut state).map_err(Error::io("lock", &self.path))?;
        Ok(Inside { state, path: &self.path, mark })
    }
}

impl Inside<'_> {
    /// Whether no removal was announced since the last [`saw`](Self::saw).
    pub(crate) fn is_current(&self) -> bool {
        self.state.seen == Some(self.mark)
    }

    /// We have just looked at the whole log.
    pub(crate) fn saw(&mut self) {
        self.state.seen = Some(self.mark);
    }

    /// Tells all others that a segment will be removed.
    pub(crate) fn mark(&mut self) -> Result<(), Error> {
        self.mark = random_id(0).to_le_bytes();
        let mut file = self.state.file.as_ref().expect("entering opens it");
        let written = file.rewind().and_then(|()| file.write_all(&self.mark));
        written.map_err(Error::io("write", self.path))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Closing unlocks too, should this fail.
        if self.state.file.as_ref().is_some_and(|file| file.unlock().is_err()) {
            self.state.file = None;
        }
    }
}

/// Locks the file and returns its mark.
fn lock(path: &Path, state: &mut State) -> io::Result<[u8; 8]> {
    let file = opened(path, state)?;
    file.lock()?;
    mark_in(file, state)
}

/// The same, if that is possible soon.
fn try_lock(path: &Path, state: &mut State) -> io::Result<Option<[u8; 8]>> {
    let file = opened(path, state)?;
    for _ in 0..WAIT_MAX.as_micros() / WAIT_STEP.as_micros() {
        match file.try_lock() {
            Ok(()) => return mark_in(file, state).map(Some),
            Err(TryLockError::WouldBlock) => std::thread::sleep(WAIT_STEP),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    state.file = Some(file);
    Ok(None)
}

fn opened(path: &Path, state: &mut State) -> io::Result<File> {
    match state.file.take() {
        Some(file) => Ok(file),
        None => OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path),
    }
}

/// The mark in a file that is locked. Closing it, if this fails, unlocks it.
fn mark_in(mut file: File, state: &mut State) -> io::Result<[u8; 8]> {
    let mut mark = [0; 8];
    file.rewind()?;
    match file.read_exact(&mut mark) {
        // Nobody has removed a segment yet.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => mark = [0; 8],
        other => other?,
    }
    state.file = Some(file);
    Ok(mark)
}
