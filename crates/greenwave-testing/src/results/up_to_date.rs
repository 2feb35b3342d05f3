//! That all tests of a project are known to pass, remembered together with everything that this hangs on: if nothing of that has changed, the next
//! run need not even read which tests there are. Knows nothing of how results are found.
//!
//! What is compared is what finding them looks at, in the same way: the stamps of folders and input files (which had rested, so that the stamp stands
//! for the content), the states of what tests were seen to look at, programs, variables, and whatever the caller says that its question hangs on. What
//! the results themselves are does not stand here; the caller says whether those that are kept are still the same ([`RecordKey::results`]).
//!
//! One file, replaced as a whole. Integers are little-endian; a *text* is its length (4) and its bytes:
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | magic `F5 47 57 41` |
//! | 4 | version, 1 |
//! | 32 | BLAKE3 over the key |
//! | 32 | BLAKE3 over the project's path, how tests are watched, and the variables that they see |
//! | 1 | 1: what tests look at was to be seen; 2: what they had not declared they could not read; 4: failures were kept |
//! | 8 | until when, in milliseconds since the Unix epoch |
//! | 8 | number of tests |
//! | 8 | how long they took when they ran, nanoseconds |
//! | | number (4) of variables that tests declare, and the name of each as a text |
//! | | number (4) of programs; each: the word, the folder, number (4) and names of the variables, as texts, and BLAKE3 of what identifies it (32) |
//! | | as a text: the paths that were looked at, as in the cache; and BLAKE3 (32) of their states |
//! | | as a text: what the index says of files outside the project |
//! | | number (4) of links; each: its path as a text, kind (1), hash (32) |
//! | | as a text: files that say what is ignored, as below, but with the stamps of what they lead to if they are links |
//! | | number (4) of blocks, and each as a text: folders and files, each its path and a zero, and its stamp as in the index |
//! | 32 | BLAKE3 over all before, keyed by what is derived from the secret |
//!
//! The seal keeps others, who can write to a project's folder but not to where results are kept, from making an answer up.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode as FileMode, OFlags, openat, statat};

use crate::results::key::{SCHEMA, inherited};
use crate::results::outcome::Source;
use crate::results::state::{STATE_DIRECTORY, TESTS};
use crate::run::runner::{Lookup, Prepared, Runner, RunnerOptions, tool_place};
use crate::run::suite::{SuiteReport, TOOLS};
use crate::{Environment, Error, Test, TraceMode, TraceStatus};
use greenwave_inputs::{DiscoveredDeps, PathStates};
use greenwave_inputs::{Entry, EntryKind, bytes};
use greenwave_inputs::{ProjectFiles, Snapshot};
use greenwave_inputs::{RACY, Stamp, now_ms};
use greenwave_inputs::{Reader, StatCache, replace};

/// The file's name.
const ANSWER: &str = "answer";
const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'A'];
const VERSION: u32 = 1;
/// Where the hash of the key stands.
const TERMS: Range<usize> = 8..40;
const SEAL_BYTES: usize = 32;
const TRACE: u8 = 1;
const STRICT: u8 = 2;
const CACHE_FAILURES: u8 = 4;
/// Folders and files that a thread looks at before it asks for more.
const BLOCK_PATHS: usize = 128;
/// Threads that look at them.
const THREADS_MAX: usize = 4;
/// Larger projects are looked at the long way.
const PATHS_MAX: usize = 1 << 20;

/// What an answer hangs on that the caller knows of.
#[derive(Debug, Clone, Copy)]
pub struct RecordKey {
    /// A hash of everything that decides which tests there are and how they are looked up: what says so, settings, the program itself.
    pub question: [u8; 32],
    /// A hash of all results that are kept: another as soon as one comes or goes. It must have been the same before the tests were looked up, and after.
    pub results: [u8; 32],
    /// What answers are sealed with: known to nobody who could not put results where they are kept.
    pub secret: [u8; 32],
}

/// That so many tests, all there are, are known to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpToDateRecord {
    /// How many.
    pub tests: usize,
    /// How long they took when they ran.
    pub saved: Duration,
    /// Whether tests are traced here, as they were then.
    pub tracing: TraceStatus,
}

/// What results were looked up by.
#[derive(Debug)]
pub(crate) struct LookupInputs {
    snapshot: Arc<Snapshot>,
    /// For each program the place of the first test that has it, and what identifies it.
    programs: Vec<(usize, [u8; 32])>,
    sets: Vec<Arc<DiscoveredDeps>>,
    tests: usize,
}

impl LookupInputs {
    /// `None` if not all of these are known.
    pub(crate) fn of(
        snapshot: &Arc<Snapshot>,
        wanted: &[usize],
        tests: &[Test],
        prepared: &[Result<Prepared<'_>, Error>],
        found: &[Lookup],
    ) -> Option<Self> {
        let (mut programs, mut sets) = (HashMap::new(), HashMap::new());
        if found.len() != wanted.len() {
            return None;
        }
        for ((at, prepared), found) in wanted.iter().zip(prepared).zip(found) {
            let (Ok(prepared), Lookup::Hit(_, chain)) = (prepared, found) else { return None };
            programs.entry(tool_place(&tests[*at])).or_insert_with(|| (*at, prepared.tool_digest()));
            for set in &chain.looked {
                sets.entry(Arc::as_ptr(set)).or_insert_with(|| Arc::clone(set));
            }
        }
        Some(Self {
            snapshot: Arc::clone(snapshot),
            programs: programs.into_values().collect(),
            sets: sets.into_values().collect(),
            tests: wanted.len(),
        })
    }
}

impl UpToDateRecord {
    /// A hash of what a question hangs on, for [`RecordKey::question`].
    pub fn question<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// What was remembered of a project, if everything that it hangs on is as it was. Blocks for as long as it takes to look.
    pub async fn check(project: &Path, environment: &Environment, key: &RecordKey) -> Option<Self> {
        let root = project.canonicalize().ok()?;
        let state = root.join(STATE_DIRECTORY).join(TESTS);
        let file = fs::read(state.join(ANSWER)).ok()?;
        // Whether it is worth being unsealed at all.
        if file.get(TERMS)? != key.digest() {
            return None;
        }
        let held = Held::read(unseal(&file, &key.secret)?)?;
        let index = Arc::new(Mutex::new(StatCache::decode(held.outside)?));
        // What another user has there is refused, with a word on it, where results are looked up.
        if fs::symlink_metadata(&state).ok()?.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let options = RunnerOptions {
            trace: match held.flags & TRACE {
                0 => TraceMode::Off,
                // One that requires it would have had no answer without.
                _ => TraceMode::WhenPossible,
            },
            strict: held.flags & STRICT != 0,
            cache_failures: held.flags & CACHE_FAILURES != 0,
            ..RunnerOptions::default()
        };
        let runner = Runner::with_index(environment.clone(), None, options, Arc::clone(&index));
        let folder =
            openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty()).ok()?;
        let looking = Looking::default();
        let is_same = std::thread::scope(|scope| {
            let work = || looking.look(folder.as_fd(), &held.blocks);
            (1..held.threads()).for_each(|_| drop(scope.spawn(work)));
            let is_same = now_ms() < held.until
                && about(&root, &runner, &held.declared) == held.about
                && (held.ignores.is_empty() || is_same(folder.as_fd(), held.ignores, AtFlags::empty()))
                && held.links.iter().all(|(path, entry)| is_link(&root.join(path), entry))
                && PathStates::new(&root, index, greenwave_sandbox::object_exists).digest(&held.looks)
                    == held.states;
            if !is_same {
                looking.differs.store(true, Ordering::Relaxed);
            }
            work();
            is_same
        });
        if !is_same || looking.differs.into_inner() {
            return None;
        }
        let tools = state.join(TOOLS);
        runner.tools().load(&tools);
        let mut are_same = true;
        for program in &held.programs {
            let now = runner.tool_digest(&root, &program.test).await.ok();
            are_same &= now == Some(program.digest);
        }
        // What they have answered anew is worth remembering either way.
        let _ = runner.tools().save(&tools);
        let tracing = runner.trace_status();
        are_same.then_some(Self { tests: held.tests, saved: held.saved, tracing })
    }

    /// Remembers that everything is known, if that is so, and if it can be told later that nothing has changed: says whether it is.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(crate) fn record(
        project: &ProjectFiles,
        tests: &[Test],
        runner: &Runner,
        basis: &LookupInputs,
        report: &SuiteReport,
        key: &RecordKey,
        age_max: Duration,
    ) -> Result<bool, Error> {
        let Some((saved, oldest)) = all_cached(report).filter(|_| basis.tests == tests.len()) else {
            return Ok(false);
        };
        let Some(lasting) = project.lasting() else { return Ok(false) };
        let Some((paths, links)) = rested_paths(&basis.snapshot, &lasting.folders) else { return Ok(false) };
        let declared: BTreeSet<&String> = tests.iter().flat_map(|test| &test.env).collect();
        let declared: Vec<String> = declared.into_iter().cloned().collect();
        let looks = DiscoveredDeps::new(basis.sets.iter().flat_map(|set| set.looks.iter().cloned()));
        let looks = Arc::new(looks);
        let states = basis.snapshot.states.digest(&looks);
        let options = runner.options();
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        // The ages were taken when the results were looked up.
        let lasts = age_max.saturating_sub(oldest).saturating_sub(report.wall);
        let until = now_ms().saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        let mut out = Out(Vec::with_capacity(96 * paths.len() + (1 << 16)));
        out.0.extend(MAGIC);
        out.0.extend(VERSION.to_le_bytes());
        out.0.extend(key.digest());
        out.0.extend(about(project.root(), runner, &declared));
        out.0.push(
            flag(options.trace != TraceMode::Off, TRACE)
                | flag(options.strict, STRICT)
                | flag(options.cache_failures, CACHE_FAILURES),
        );
        out.0.extend(until.to_le_bytes());
        out.0.extend((tests.len() as u64).to_le_bytes());
        out.0.extend(u64::try_from(saved.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
        out.names(&declared);
        out.count(basis.programs.len());
        for (at, digest) in &basis.programs {
            let test = &tests[*at];
            out.text(tool_place(test).0.as_bytes());
            out.text(bytes(&test.directory));
            out.names(&test.env);
            out.0.extend(digest);
        }
        out.text(&looks.encode());
        out.0.extend(states);
        out.text(&project.outside());
        out.count(links.len());
        for (path, entry) in links {
            out.text(bytes(path));
            out.0.push(entry.kind as u8);
            out.0.extend(entry.hash);
        }
        out.stamped(&lasting.ignores);
        let blocks = paths.chunks(BLOCK_PATHS);
        out.count(blocks.len());
        for block in blocks {
            out.stamped(block);
        }
        let seal = seal(&out.0, &key.secret);
        out.0.extend(seal.as_bytes());
        replace(&project.root().join(STATE_DIRECTORY).join(TESTS).join(ANSWER), &out.0)?;
        Ok(true)
    }
}

/// How long all tests took and how old the oldest result is, if all are known and pass.
fn all_cached(report: &SuiteReport) -> Option<(Duration, Duration)> {
    let mut oldest = Duration::ZERO;
    for result in &report.results {
        let outcome = result.as_ref()?.as_ref().ok().filter(|outcome| outcome.passed())?;
        let Source::Cached(age) = outcome.source else { return None };
        oldest = oldest.max(age);
    }
    (report.audited == 0).then_some((report.saved, oldest))
}

/// Folders and files with their stamps, and the links among the latter.
type Paths<'s> = (Vec<(&'s Path, Stamp)>, Vec<(&'s Path, Entry)>);

/// All folders and input files of a snapshot; `None` if one was touched so lately that it could change without its stamp changing, or while it was
/// looked at.
fn rested_paths<'s>(snapshot: &'s Snapshot, folders: &'s [(PathBuf, Stamp)]) -> Option<Paths<'s>> {
    if snapshot.has_changed() {
        return None;
    }
    let mut paths: Vec<_> = folders.iter().map(|(path, stamp)| (path.as_path(), *stamp)).collect();
    let mut links = Vec::new();
    for (file, entry) in snapshot.files() {
        // What nobody has for an input was not read.
        if entry.is_none() {
            continue;
        }
        if !file.stamp.rested(RACY, snapshot.at) {
            return None;
        }
        if let (true, Some(entry)) = (file.is_link, entry) {
            links.push((file.path.as_path(), *entry));
        }
        paths.push((file.path.as_path(), file.stamp));
    }
    // Neighbours together: what leads to them is at hand then.
    paths.sort_unstable_by(|one, other| bytes(one.0).cmp(bytes(other.0)));
    let are_names = paths.iter().all(|(path, _)| !bytes(path).contains(&0));
    (are_names && paths.len() <= PATHS_MAX).then_some((paths, links))
}

impl RecordKey {
    fn digest(&self) -> [u8; 32] {
        UpToDateRecord::question([self.question.as_slice(), &self.results])
    }
}

/// A hash of what is not looked at file by file.
fn about(root: &Path, runner: &Runner, declared: &[String]) -> [u8; 32] {
    let (is_root, mask) = inherited();
    let mut hasher = blake3::Hasher::new();
    let mut part = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    part(env!("CARGO_PKG_VERSION").as_bytes());
    part(&SCHEMA.to_le_bytes());
    part(bytes(root));
    part(&[runner.mode() as u8, u8::from(is_root)]);
    part(&mask.to_le_bytes());
    for (name, value) in runner.environment().visible(declared) {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn is_link(path: &Path, known: &Entry) -> bool {
    Entry::read(path, true).is_ok_and(|(entry, _)| entry == *known)
}

fn seal(body: &[u8], secret: &[u8; 32]) -> blake3::Hash {
    blake3::keyed_hash(&blake3::derive_key("greenwave tests 2026-11 answer seal", secret), body)
}

fn unseal<'b>(file: &'b [u8], secret: &[u8; 32]) -> Option<&'b [u8]> {
    let (body, sealed) = file.split_at_checked(file.len().checked_sub(SEAL_BYTES)?)?;
    let sealed: [u8; SEAL_BYTES] = sealed.try_into().ok()?;
    // In constant time, which is what comparing a `blake3::Hash` does.
    (seal(body, secret) == blake3::Hash::from_bytes(sealed)).then_some(body)
}

/// What stands in the file.
struct Held<'b> {
    about: [u8; 32],
    flags: u8,
    until: u64,
    tests: usize,
    saved: Duration,
    declared: Vec<String>,
    programs: Vec<Program>,
    looks: Arc<DiscoveredDeps>,
    states: [u8; 32],
    outside: &'b [u8],
    links: Vec<(PathBuf, Entry)>,
    ignores: &'b [u8],
    blocks: Vec<&'b [u8]>,
}

/// A program, as a test that has nothing but its first word, its folder and its variables, and what identified it.
struct Program {
    test: Test,
    digest: [u8; 32],
}

impl<'b> Held<'b> {
    fn read(body: &'b [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.array()? != MAGIC || u32::from_le_bytes(reader.array()?) != VERSION {
            return None;
        }
        reader.take(TERMS.len())?;
        let about = reader.array()?;
        let [flags] = reader.array()?;
        let (until, tests) = (reader.number()?, usize::try_from(reader.number()?).ok()?);
        let saved = Duration::from_nanos(reader.number()?);
        let declared = names(&mut reader)?;
        let programs = list(&mut reader, |reader| {
            let word = String::from_utf8(text(reader)?.to_vec()).ok()?;
            let directory = PathBuf::from(OsStr::from_bytes(text(reader)?));
            let env = names(reader)?;
            Some(Program { test: Test { directory, env, ..Test::new("", [word]) }, digest: reader.array()? })
        })?;
        let looks = Arc::new(DiscoveredDeps::decode(text(&mut reader)?)?);
        let states = reader.array()?;
        let outside = text(&mut reader)?;
        let links = list(&mut reader, |reader| {
            let path = PathBuf::from(OsStr::from_bytes(text(reader)?));
            let [kind] = reader.array()?;
            Some((path, Entry { kind: EntryKind::from_number(kind)?, hash: reader.array()? }))
        })?;
        let ignores = text(&mut reader)?;
        let blocks = list(&mut reader, text)?;
        let is_all = reader.0.is_empty();
        let held = Self {
            about,
            flags,
            until,
            tests,
            saved,
            declared,
            programs,
            looks,
            states,
            outside,
            links,
            ignores,
            blocks,
        };
        is_all.then_some(held)
    }

    fn threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        processors.min(THREADS_MAX).min(self.blocks.len()).max(1)
    }
}

/// Threads that look at folders and files together.
#[derive(Debug, Default)]
struct Looking {
    next: AtomicUsize,
    differs: AtomicBool,
}

impl Looking {
    /// ObservedStates at one block after another, until there is none or one of them has changed.
    fn look(&self, folder: BorrowedFd<'_>, blocks: &[&[u8]]) {
        while !self.differs.load(Ordering::Relaxed) {
            match blocks.get(self.next.fetch_add(1, Ordering::Relaxed)) {
                None => return,
                Some(block) if is_same(folder, block, AtFlags::SYMLINK_NOFOLLOW) => {}
                Some(_) => self.differs.store(true, Ordering::Relaxed),
            }
        }
    }
}

/// Whether all these have the stamps that they had.
fn is_same(folder: BorrowedFd<'_>, stamped: &[u8], flags: AtFlags) -> bool {
    let mut reader = Reader(stamped);
    let mut next = || {
        let path = CStr::from_bytes_until_nul(reader.0).ok()?;
        reader.take(path.to_bytes_with_nul().len())?;
        let known = Stamp::read(&mut reader)?;
        let stat = statat(folder, path, flags).ok()?;
        (Stamp::of_stat(&stat) == known).then_some(reader.0.is_empty())
    };
    loop {
        match next() {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
}

/// Bytes that are being put together.
struct Out(Vec<u8>);

impl Out {
    fn count(&mut self, count: usize) {
        self.0.extend(u32::try_from(count).expect("fewer than 2^32 of anything").to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.count(text.len());
        self.0.extend_from_slice(text);
    }

    /// Paths and stamps.
    fn stamped(&mut self, paths: &[(impl AsRef<Path>, Stamp)]) {
        let mut inside = Vec::with_capacity(96 * paths.len());
        for (path, stamp) in paths {
            let path = path.as_ref();
            // The project's own folder.
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            inside.extend_from_slice(bytes(path));
            inside.push(0);
            stamp.write(&mut inside);
        }
        self.text(&inside);
    }

    fn names(&mut self, names: &[String]) {
        self.count(names.len());
        names.iter().for_each(|name| self.text(name.as_bytes()));
    }
}

fn text<'b>(reader: &mut Reader<'b>) -> Option<&'b [u8]> {
    let length = u32::from_le_bytes(reader.array()?) as usize;
    reader.take(length)
}

fn names(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    list(reader, |reader| String::from_utf8(text(reader)?.to_vec()).ok())
}

fn list<'b, T>(
    reader: &mut Reader<'b>,
    mut read: impl FnMut(&mut Reader<'b>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = u32::from_le_bytes(reader.array()?);
    (0..count).map(|_| read(reader)).collect()
}
