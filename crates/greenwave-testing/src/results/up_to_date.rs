//! Checks whether a project has changed since a run in which all tests were cached passes.
//!
//! Such a run writes an up-to-date record with everything that its lookups depended on. The next
//! run first verifies the record. If everything is unchanged, all tests are still cached passes,
//! and the run neither parses the list of tests nor opens the cache.
//!
//! The record does not contain results, only [`RecordKey::results`], by which the caller identifies
//! the contents of its cache. The verification uses the code that lookups use: timestamps of
//! directories and input files, states of discovered dependencies, fingerprints of programs, values
//! of variables. Only files whose timestamps are not racy are recorded. Symbolic links and files in
//! memory are compared by content.
//!
//! If the tests were discovered, the record also holds the dependencies of the discovery:
//! manifests, programs, settings, and the stamps of all directories of the project. Commands that
//! collect tests have a second record, which must be current, too.
//!
//! The file is sealed like all state. A project may come from someone who can write to its
//! directory but not to the results, and who must not be able to forge a record.
//! `docs/formats/state.md` describes the layout of the file.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, OsStr};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_dir::read_regular;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode as FileMode, OFlags, openat, statat};

use crate::boxed::boxed;
use crate::harness::discovery_state::DiscoveryState;
use crate::results::key::{SCHEMA, inherited, resource_limits};
use crate::results::lookup_inputs::LookupInputs;
use crate::results::outcome::Source;
use crate::results::state::{StateDirectory, StateFile};
use crate::run::options::RunnerOptions;
use crate::run::runner::Runner;
use crate::run::runner::prepare::program_location;
use crate::run::suite::report::SuiteReport;
use crate::{Environment, Error, Harnesses, Test, TraceMode, TraceStatus};
use greenwave_inputs::codec::{self, Header, Reader, Writer};
use greenwave_inputs::{AccessKind, DiscoveredDeps, DurableDirectories, PathState, PathStates};
use greenwave_inputs::{EntryKind, ManifestEntry};
use greenwave_inputs::{FileStamp, now_ms};
use greenwave_inputs::{ProjectFiles, Snapshot};
use greenwave_inputs::{StatCache, UserKey};

const HEADER: Header = Header { magic: [0xF5, b'G', b'W', b'A'], version: 3 };
/// Maximum size of a record, in bytes. That of 100,000 files has about 10 MB.
const RECORD_BYTES_MAX: u64 = 1 << 30;
/// Position of the digest of the key.
const KEY_DIGEST: Range<usize> = 8..40;
const TRACE: u8 = 1;
const STRICT: u8 = 2;
const CACHE_FAILURES: u8 = 4;
/// Marks of the origin of the tests.
const DECLARED: u8 = 0;
const DISCOVERED: u8 = 1;
const COLLECTED: u8 = 2;
/// Number of paths that a thread checks before it takes the next block.
const BLOCK_PATHS: usize = 128;
/// Maximum number of threads that check paths.
const THREADS_MAX: usize = 4;
/// Maximum number of directories and input files. Larger projects get no record.
const PATHS_MAX: usize = 1 << 20;

/// The part of an up-to-date record's dependencies that its caller determines.
#[derive(Debug, Clone)]
pub struct RecordKey {
    /// Hash of everything that decides which tests the project has and how they are looked up:
    /// the file of tests, settings, the program itself. See [`UpToDateRecord::question`].
    pub question: [u8; 32],
    /// Hash of all stored results, which changes with each result that is added or removed.
    ///
    /// A caller records a run only if the hash was the same before the lookups and after them.
    pub results: [u8; 32],
    /// Key that seals the state of projects.
    pub user: UserKey,
}

/// A statement that all tests of a project are cached passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpToDateRecord {
    /// Number of tests.
    pub tests: usize,
    /// Total duration of the runs that produced the results.
    pub saved: Duration,
    /// Whether tests are traced now. The record holds only where the run that wrote it had the
    /// same.
    pub tracing: TraceStatus,
    /// Encoded names of the tests, each with the duration of the run that produced its result.
    names: Vec<u8>,
}

impl UpToDateRecord {
    /// Hashes a list of byte strings, for [`RecordKey::question`].
    ///
    /// Lists that differ in any element, or in how their bytes are divided, have different hashes.
    pub fn question<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// Returns the record of a project if everything that it depends on is unchanged. `harnesses`
    /// discover tests.
    ///
    /// Blocks the calling thread while it checks timestamps, on up to four threads in total. A
    /// missing, damaged or foreign record counts as outdated.
    pub fn check<'a>(
        project: &'a Path,
        harnesses: &'a Harnesses,
        environment: &'a Environment,
        key: &'a RecordKey,
    ) -> impl Future<Output = Option<Self>> + Send + 'a {
        boxed(Self::check_all(project, harnesses, environment, key))
    }

    /// Returns the number of tests with wanted names, and the total duration of the runs that
    /// produced their results.
    pub fn count(&self, mut is_wanted: impl FnMut(&str) -> bool) -> (usize, Duration) {
        let (mut reader, mut count, mut saved) = (Reader(&self.names), 0, 0_u64);
        while let (Some(name), Some(nanos)) = (reader.text(), reader.number()) {
            if std::str::from_utf8(name).is_ok_and(&mut is_wanted) {
                count += 1;
                saved = saved.saturating_add(nanos);
            }
        }
        (count, Duration::from_nanos(saved))
    }

    async fn check_all(
        project: &Path,
        harnesses: &Harnesses,
        environment: &Environment,
        key: &RecordKey,
    ) -> Option<Self> {
        let root = project.canonicalize().ok()?;
        let state = StateDirectory::existing(&root, &key.user).ok()?;
        let (record, discovered) =
            Self::check_record(&root, &state, StateFile::UpToDate, environment, key).await?;
        if let Some(Discovered { state: discovery, has_collections }) = discovered {
            if !discovery.is_current(&root, harnesses, environment) {
                return None;
            }
            if has_collections {
                Self::check_record(&root, &state, StateFile::CollectionsUpToDate, environment, key).await?;
            }
        }
        Some(record)
    }

    async fn check_record(
        root: &Path,
        state: &StateDirectory,
        name: StateFile,
        environment: &Environment,
        key: &RecordKey,
    ) -> Option<(Self, Option<Discovered>)> {
        let file = read_regular(state.path(name), RECORD_BYTES_MAX).ok()?;
        // Avoids hashing a long file that is outdated anyway.
        if file.get(KEY_DIGEST)? != key.digest() {
            return None;
        }
        let body = RecordBody::decode(state.unseal(name, &file)?)?;
        let index = Arc::new(Mutex::new(StatCache::decode(body.outside)?));
        // Another user's state directory is an error, which the full lookup reports.
        if state.directory().symlink_metadata().ok()?.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let runner = Runner::with_index(environment.clone(), None, body.runner_options(), Arc::clone(&index));
        if body.dependencies.has_maintained() {
            runner.maintained().load(state.read(StateFile::Maintained).as_deref());
        }
        if !body.is_current(root, &runner, index) {
            return None;
        }
        runner.tools().load(state);
        let mut are_same = true;
        for program in &body.programs {
            let now = runner.tool_digest(root, &program.test).await.ok();
            are_same &= now == Some(program.digest);
        }
        // Versions that tools have just reported are valid even if the record is outdated. Without
        // them, the next check is slower but not wrong, so an error is ignored.
        let _ = runner.tools().save(state);
        let tracing = runner.trace_status();
        let RecordBody { tests, saved, discovered, .. } = body;
        are_same.then(|| (Self { tests, saved, tracing, names: body.names.to_owned() }, discovered))
    }

    /// Writes the record of a run if all tests were cached passes and later changes would be
    /// detected. Returns whether it was written.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be written.
    pub(crate) fn record(
        state: (&StateDirectory, StateFile),
        (project, tests, runner): (&ProjectFiles, &[Test], &Runner),
        report: &SuiteReport,
        key: &RecordKey,
        age_max: Duration,
        origin: RecordOrigin,
    ) -> Result<bool, Error> {
        let Some(lookup_inputs) = &report.lookup_inputs else { return Ok(false) };
        // Reading the whole project is the slow path.
        if lookup_inputs.sets.iter().any(|set| set.has_tree()) {
            return Ok(false);
        }
        let Some((saved, oldest)) = all_cached(report).filter(|_| lookup_inputs.tests == tests.len()) else {
            return Ok(false);
        };
        let RecordOrigin { directories, discovered } = origin;
        let Some(own) = project.durable_directories() else { return Ok(false) };
        let lasting = directories.into_iter().fold(own, union);
        let Some((paths, mut contents)) = settled_paths(&lookup_inputs.snapshot, &lasting.directories) else {
            return Ok(false);
        };
        contents.extend(lasting.ignore_contents.iter().map(|(path, entry)| (path.as_path(), *entry)));
        let declared: BTreeSet<&String> = tests.iter().flat_map(|test| &test.env).collect();
        let declared: Vec<String> = declared.into_iter().cloned().collect();
        // Ages were determined when the results were looked up, at the start of the run.
        let valid_for = age_max.saturating_sub(oldest).saturating_sub(report.wall);
        let mut out = HEADER.writer(96 * paths.len() + (1 << 16));
        out.bytes(&key.digest()).bytes(&environment_digest(project.root(), runner, &declared));
        out.byte(flags(runner.options()));
        out.number(now_ms().saturating_add(saturating(valid_for.as_millis())));
        out.number(tests.len() as u64).number(saturating(saved.as_nanos()));
        put_names(&mut out, &declared);
        put_discovered(&mut out, discovered.as_ref());
        let dependencies = dependencies(project.root(), lookup_inputs, &lasting.directories);
        put_lookup_inputs(&mut out, lookup_inputs, tests, &dependencies);
        out.text(&project.encode_used(&dependencies));
        out.count(contents.len());
        for (path, entry) in contents {
            out.path(path).byte(entry.kind as u8).bytes(&entry.hash);
        }
        put_stamped(&mut out, &lasting.ignore_files);
        let blocks = paths.chunks(BLOCK_PATHS);
        out.count(blocks.len());
        for block in blocks {
            put_stamped(&mut out, block);
        }
        put_results(&mut out, tests, report);
        let (state, name) = state;
        state.replace(name, out.0)?;
        Ok(true)
    }
}

/// Returns the total duration of all tests and the age of the oldest result, if all are cached
/// passes.
fn all_cached(report: &SuiteReport) -> Option<(Duration, Duration)> {
    let mut oldest = Duration::ZERO;
    for result in &report.results {
        let outcome = result.as_ref()?.as_ref().ok().filter(|outcome| outcome.passed())?;
        let Source::Cached(age) = outcome.source else { return None };
        oldest = oldest.max(age);
    }
    (report.audited == 0).then_some((report.saved, oldest))
}

/// Joins two lists of directories and ignore files. A path that has changed between the two keeps
/// both stamps. One of them is outdated, so the record is outdated as well.
fn union(mut one: DurableDirectories, other: DurableDirectories) -> DurableDirectories {
    let join = |all: &mut Vec<(PathBuf, FileStamp)>, more: Vec<(PathBuf, FileStamp)>| {
        all.extend(more);
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup();
    };
    join(&mut one.directories, other.directories);
    join(&mut one.ignore_files, other.ignore_files);
    one.ignore_contents.extend(other.ignore_contents);
    one
}

/// Paths with their timestamps, and the hashes of files that are compared by content.
type Paths<'s> = (Vec<(&'s Path, FileStamp)>, Vec<(&'s Path, ManifestEntry)>);

/// Returns all directories and input files of a snapshot, sorted by path.
///
/// Returns `None` if a timestamp is racy, if a file changed while the snapshot was taken, or if
/// there are too many paths.
fn settled_paths<'s>(snapshot: &'s Snapshot, directories: &'s [(PathBuf, FileStamp)]) -> Option<Paths<'s>> {
    if snapshot.changed_while_read() {
        return None;
    }
    let mut paths: Vec<_> = directories.iter().map(|(path, stamp)| (path.as_path(), *stamp)).collect();
    let mut contents = Vec::new();
    for (file, entry) in snapshot.files() {
        // A file without an entry is not an input of any test.
        let Some(entry) = entry else { continue };
        let is_in_memory = file.stamp.is_in_memory();
        if file.is_link || is_in_memory {
            contents.push((file.path.as_path(), *entry));
        }
        if is_in_memory {
            continue;
        }
        if file.stamp.is_racy(snapshot.taken_at) {
            return None;
        }
        paths.push((file.path.as_path(), file.stamp));
    }
    // Neighbours share directories, which the kernel then finds in its cache.
    paths.sort_unstable_by(|one, other| codec::path_bytes(one.0).cmp(codec::path_bytes(other.0)));
    let are_valid = paths.iter().all(|(path, _)| !codec::path_bytes(path).contains(&0));
    (are_valid && paths.len() + contents.len() <= PATHS_MAX).then_some((paths, contents))
}

impl RecordKey {
    fn digest(&self) -> [u8; 32] {
        UpToDateRecord::question([self.question.as_slice(), &self.results])
    }
}

/// Hashes the dependencies that are not files: version and mode of this program, user, umask and
/// resource limits, and the variables that tests see. Covers the project's path as well.
fn environment_digest(root: &Path, runner: &Runner, declared: &[String]) -> [u8; 32] {
    let (is_root, umask) = inherited();
    let mut hasher = blake3::Hasher::new();
    let mut part = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    part(env!("CARGO_PKG_VERSION").as_bytes());
    part(&SCHEMA.to_le_bytes());
    part(codec::path_bytes(root));
    part(&[runner.mode() as u8, u8::from(is_root)]);
    part(&umask.to_le_bytes());
    for limit in resource_limits() {
        part(&limit.to_le_bytes());
    }
    for (name, value) in runner.environment().visible(declared) {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Returns whether the content of a file is unchanged. That of a symbolic link includes its target.
fn has_same_content(path: &Path, recorded: &ManifestEntry) -> bool {
    let is_link = recorded.kind == EntryKind::Symlink;
    ManifestEntry::read(path, is_link).is_ok_and(|(entry, _)| entry == *recorded)
}

fn saturating(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn flags(options: &RunnerOptions) -> u8 {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    flag(options.trace != TraceMode::Off, TRACE)
        | flag(options.strict, STRICT)
        | flag(options.cache_failures, CACHE_FAILURES)
}

/// The decoded contents of a record's file.
struct RecordBody<'b> {
    environment: [u8; 32],
    flags: u8,
    /// Time at which the oldest result expires, in milliseconds since the Unix epoch.
    valid_until: u64,
    tests: usize,
    saved: Duration,
    declared: Vec<String>,
    /// The dependencies of the discovery; `None` for declared tests.
    discovered: Option<Discovered>,
    programs: Vec<Program>,
    dependencies: Arc<DiscoveredDeps>,
    states: [u8; 32],
    /// Encoded hashes of files outside the project, and of discovered dependencies inside.
    outside: &'b [u8],
    /// Symbolic links and files in memory.
    contents: Vec<(PathBuf, ManifestEntry)>,
    /// Encoded ignore files with timestamps.
    ignores: &'b [u8],
    /// Encoded directories and input files with timestamps.
    blocks: Vec<&'b [u8]>,
    /// Encoded names and durations of the tests.
    names: &'b [u8],
}

/// The origin of the tests that a record is about.
#[derive(Debug, Default)]
pub(crate) struct RecordOrigin {
    /// Directories that count beside those in which the tests have inputs.
    pub(crate) directories: Option<DurableDirectories>,
    /// The dependencies of the discovery; `None` for declared tests, and for commands that collect
    /// tests.
    pub(crate) discovered: Option<Discovered>,
}

/// The dependencies of a discovery.
#[derive(Debug)]
pub(crate) struct Discovered {
    pub(crate) state: DiscoveryState,
    /// Whether commands have collected tests, whose record counts as well.
    pub(crate) has_collections: bool,
}

/// The program of some tests.
struct Program {
    /// A test with nothing but the program's name, the working directory and the declared
    /// variables.
    test: Test,
    /// Fingerprint of the program and its toolchain.
    digest: [u8; 32],
}

impl<'b> RecordBody<'b> {
    fn decode(body: &'b [u8]) -> Option<Self> {
        let mut reader = HEADER.reader(body)?;
        reader.take(KEY_DIGEST.len())?;
        let (environment, flags) = (reader.array()?, reader.byte()?);
        let (valid_until, tests) = (reader.number()?, usize::try_from(reader.number()?).ok()?);
        let saved = Duration::from_nanos(reader.number()?);
        let declared = reader.list(Reader::string)?;
        let discovered = match reader.byte()? {
            DECLARED => None,
            kind @ (DISCOVERED | COLLECTED) => {
                let state = DiscoveryState::decode(&mut reader)?;
                Some(Discovered { state, has_collections: kind == COLLECTED })
            }
            _ => return None,
        };
        let programs = reader.list(|reader| {
            let (word, directory) = (reader.string()?, reader.path()?);
            let env = reader.list(Reader::string)?;
            Some(Program { test: Test { directory, env, ..Test::new("", [word]) }, digest: reader.array()? })
        })?;
        let dependencies = Arc::new(DiscoveredDeps::decode(reader.text()?)?);
        let states = reader.array()?;
        let outside = reader.text()?;
        let contents = reader.list(|reader| {
            let (path, kind) = (reader.path()?, EntryKind::from_number(reader.byte()?)?);
            Some((path, ManifestEntry { kind, hash: reader.array()? }))
        })?;
        let ignores = reader.text()?;
        let blocks = reader.list(Reader::text)?;
        let names = reader.text()?;
        let is_at_end = reader.0.is_empty();
        let decoded = Self {
            environment,
            flags,
            valid_until,
            tests,
            saved,
            declared,
            discovered,
            programs,
            dependencies,
            states,
            outside,
            contents,
            ignores,
            blocks,
            names,
        };
        is_at_end.then_some(decoded)
    }

    fn runner_options(&self) -> RunnerOptions {
        // A run that requires tracing wrote a record only if it could trace, and the mode in the
        // environment's digest shows whether this run can.
        let trace = if self.flags & TRACE == 0 { TraceMode::Off } else { TraceMode::WhenPossible };
        RunnerOptions {
            trace,
            strict: self.flags & STRICT != 0,
            cache_failures: self.flags & CACHE_FAILURES != 0,
            ..RunnerOptions::default()
        }
    }

    /// Checks everything but programs. `index` holds the recorded hashes of files outside the
    /// project.
    fn is_current(&self, root: &Path, runner: &Runner, index: Arc<Mutex<StatCache>>) -> bool {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        #[cfg(target_os = "linux")]
        let flags = flags | OFlags::PATH;
        let Ok(directory) = openat(CWD, root, flags, FileMode::empty()) else { return false };
        let blocks = self.file_blocks();
        let check = FileCheck::default();
        let dependencies = || {
            let states = PathStates::new(root, index, greenwave_sandbox::kernel_object_exists)
                .with_maintained(Arc::clone(runner.maintained()));
            states.verify_maintained();
            states
        };
        let is_same = std::thread::scope(|scope| {
            let work = || check.run(directory.as_fd(), root, &blocks);
            (1..threads(blocks.len())).for_each(|_| drop(scope.spawn(work)));
            let is_same = now_ms() < self.valid_until
                && environment_digest(root, runner, &self.declared) == self.environment
                && (self.ignores.is_empty()
                    || have_same_stamps(directory.as_fd(), self.ignores, AtFlags::empty()))
                && dependencies().digest(&self.dependencies) == self.states;
            if !is_same {
                check.has_difference.store(true, Ordering::Relaxed);
            }
            work();
            is_same
        });
        is_same && !check.has_difference.into_inner()
    }

    fn file_blocks(&self) -> Vec<FileBlock<'_>> {
        let stamps = self.blocks.iter().copied().map(FileBlock::Stamps);
        stamps.chain(self.contents.chunks(BLOCK_PATHS).map(FileBlock::Contents)).collect()
    }
}

fn threads(blocks: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.min(THREADS_MAX).min(blocks).max(1)
}

/// Files that one thread checks at a time.
enum FileBlock<'b> {
    /// Encoded paths with timestamps.
    Stamps(&'b [u8]),
    /// Paths with contents.
    Contents(&'b [(PathBuf, ManifestEntry)]),
}

impl FileBlock<'_> {
    fn is_current(&self, directory: BorrowedFd<'_>, root: &Path) -> bool {
        match self {
            FileBlock::Stamps(block) => have_same_stamps(directory, block, AtFlags::SYMLINK_NOFOLLOW),
            FileBlock::Contents(files) => {
                files.iter().all(|(path, entry)| has_same_content(&root.join(path), entry))
            }
        }
    }
}

/// A check of files that several threads share.
#[derive(Debug, Default)]
struct FileCheck {
    next_block: AtomicUsize,
    /// Whether a difference was found, so that all threads can stop.
    has_difference: AtomicBool,
}

impl FileCheck {
    /// Checks one block after another, until none is left or a difference is found.
    fn run(&self, directory: BorrowedFd<'_>, root: &Path, blocks: &[FileBlock<'_>]) {
        while !self.has_difference.load(Ordering::Relaxed) {
            let Some(block) = blocks.get(self.next_block.fetch_add(1, Ordering::Relaxed)) else { return };
            if !block.is_current(directory, root) {
                self.has_difference.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Returns whether all paths of an encoded block have their recorded timestamps.
fn have_same_stamps(directory: BorrowedFd<'_>, stamped: &[u8], flags: AtFlags) -> bool {
    let mut reader = Reader(stamped);
    let mut next = || {
        let path = CStr::from_bytes_until_nul(reader.0).ok()?;
        reader.take(path.to_bytes_with_nul().len())?;
        let recorded = FileStamp::decode(&mut reader)?;
        let stat = statat(directory, path, flags).ok()?;
        (FileStamp::from_stat(&stat) == recorded).then_some(reader.0.is_empty())
    };
    loop {
        match next() {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
}

/// Decodes arbitrary bytes as the content of a record, and compares its paths below `directory`.
#[cfg(feature = "conformance")]
pub(crate) fn check_body(directory: &Path, bytes: &[u8]) {
    let Some(body) = RecordBody::decode(bytes) else { return };
    drop((body.runner_options(), StatCache::decode(body.outside)));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, FileMode::empty()).expect("the directory exists");
    have_same_stamps(directory.as_fd(), body.ignores, AtFlags::empty());
    for block in body.blocks {
        have_same_stamps(directory.as_fd(), block, AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// Appends a block of paths with their timestamps.
fn put_stamped(out: &mut Writer, paths: &[(impl AsRef<Path>, FileStamp)]) {
    let mut block = Writer(Vec::with_capacity(96 * paths.len()));
    for (path, stamp) in paths {
        let path = path.as_ref();
        // The project's directory has an empty path, which `statat` rejects.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        block.bytes(codec::path_bytes(path)).byte(0);
        stamp.encode(&mut block.0);
    }
    out.text(&block.0);
}

/// Appends the names of all tests, with the durations of the runs that produced their results.
fn put_results(out: &mut Writer, tests: &[Test], report: &SuiteReport) {
    let mut results = Writer(Vec::with_capacity(40 * tests.len()));
    for (test, result) in tests.iter().zip(&report.results) {
        let duration = result.as_ref().and_then(|result| Some(result.as_ref().ok()?.duration));
        let nanos = duration.unwrap_or_default().as_nanos();
        results.text(test.name.as_bytes()).number(saturating(nanos));
    }
    out.text(&results.0);
}

fn put_names(out: &mut Writer, names: &[String]) {
    out.count(names.len());
    for name in names {
        out.text(name.as_bytes());
    }
}

/// Appends the dependencies of a discovery.
fn put_discovered(out: &mut Writer, discovered: Option<&Discovered>) {
    match discovered {
        None => drop(out.byte(DECLARED)),
        Some(Discovered { state, has_collections }) => {
            out.byte(if *has_collections { COLLECTED } else { DISCOVERED });
            state.encode(out);
        }
    }
}

/// Appends programs, and discovered dependencies with the digest of their states.
fn put_lookup_inputs(
    out: &mut Writer,
    inputs: &LookupInputs,
    tests: &[Test],
    dependencies: &Arc<DiscoveredDeps>,
) {
    out.count(inputs.programs.len());
    for (id, digest) in &inputs.programs {
        let test = &tests[id.index()];
        out.text(program_location(test).0.as_bytes()).path(&test.directory);
        put_names(out, &test.env);
        out.bytes(digest);
    }
    out.text(&dependencies.encode());
    out.bytes(&inputs.snapshot.states.digest(dependencies));
}

fn is_missing(path: &Path) -> bool {
    let is_missing = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    path.symlink_metadata().is_err_and(|error| is_missing(error.kind()))
}

/// Returns the discovered dependencies of all tests, without missing paths in directories whose
/// stamps are compared: these show that a path is still missing. So do regular files, in which
/// pytest, for example, searches a virtual environment.
///
/// The stamps may be younger than the lookup, so a path must also be missing now. Otherwise the
/// stamps could belong to a directory in which it was created after the lookup.
fn dependencies(
    root: &Path,
    inputs: &LookupInputs,
    directories: &[(PathBuf, FileStamp)],
) -> Arc<DiscoveredDeps> {
    let directories = directories.iter().map(|(path, _)| path.as_os_str());
    let files = inputs.snapshot.files().filter(|(file, entry)| entry.is_some() && !file.is_link);
    let compared: HashSet<&OsStr> = directories.chain(files.map(|(file, _)| file.path.as_os_str())).collect();
    let is_compared = |(path, kind): &(PathBuf, AccessKind)| {
        matches!(kind, AccessKind::Content | AccessKind::Names | AccessKind::Repository)
            && path.parent().is_some_and(|parent| compared.contains(parent.as_os_str()))
            && inputs.snapshot.states.state(path, *kind).0 == PathState::Absent
            && is_missing(&root.join(path))
    };
    let all = DiscoveredDeps::new(inputs.sets.iter().flat_map(|set| set.accesses.iter().cloned()));
    Arc::new(DiscoveredDeps::new(all.accesses.into_iter().filter(|access| !is_compared(access))))
}

#[cfg(test)]
mod tests;
