//! Derives the cache keys of a test from its command, environment, toolchain and dependencies.
//!
//! A lookup walks a chain of keys. The first key covers everything that can be determined before
//! the test runs. Its record holds either the result or a set of discovered dependencies. In the
//! latter case, the next key covers the previous key and the current states of these dependencies,
//! and the lookup goes on with that key. The chain ends at the result, because a deterministic
//! program that has observed the same states up to a point accesses the same path next.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

use greenwave_cache::{Key, KeyBuilder};
use greenwave_inputs::DiscoveredDeps;
use rustix::process::{Resource, getrlimit};

use crate::harness::LaunchSpec;
use crate::{IncompleteMode, Manifest, Test};

/// Version of the fields of keys and of the payloads of records.
///
/// Increases with each incompatible change, so that older records become misses.
pub const SCHEMA: u32 = 10;

/// Number of open files that systems allow by default. Higher limits do not count.
const OPEN_FILES_USUAL: u64 = 1024;

/// The way in which a run observes and restricts the reads of tests.
///
/// Each mode has separate keys, since a run that does not trace cannot verify the dependencies
/// that a traced run discovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyMode {
    /// Reads are neither traced nor restricted.
    Untraced = 0,
    /// Reads are traced.
    Traced = 1,
    /// Undeclared reads fail.
    Strict = 2,
    /// Reads are traced, and undeclared reads fail.
    StrictTraced = 3,
}

/// Returns the first key of a test, which covers everything that can be determined before it runs.
///
/// `tools` holds the fingerprints of the program and of the toolchain behind it.
pub(crate) fn first(
    mode: KeyMode,
    incomplete: IncompleteMode,
    test: &Test,
    environment: &[(&str, &OsStr)],
    tools: &[[u8; 32]],
    inputs: &Manifest,
) -> Key {
    let mut key = KeyBuilder::new("greenwave test", SCHEMA);
    put_declaration(&mut key, mode, incomplete, test, environment, tools);
    key.bytes(inputs.digest());
    key.finish()
}

/// Returns the key of the list of a test's complete traces. It covers everything that can be
/// determined before the test runs, except for its input files.
///
/// Also covers the name of the test, so that the lists of different tests are separate. Each holds
/// a limited number of traces.
pub(crate) fn traces(
    mode: KeyMode,
    incomplete: IncompleteMode,
    test: &Test,
    environment: &[(&str, &OsStr)],
    tools: &[[u8; 32]],
) -> Key {
    let mut key = KeyBuilder::new("greenwave test, traces", SCHEMA);
    put_declaration(&mut key, mode, incomplete, test, environment, tools);
    key.text(&test.name);
    key.finish()
}

/// Returns the key of the list of complete traces of a test whose program was built before it
/// started.
///
/// Covers the process as well: the program's path, its arguments, directory and variables. The
/// program's content is part of each trace, since the process opens it.
pub(crate) fn traces_of_process(
    mode: KeyMode,
    incomplete: IncompleteMode,
    test: &Test,
    environment: &[(&str, &OsStr)],
    tools: &[[u8; 32]],
    launch: &LaunchSpec,
) -> Key {
    let mut key = KeyBuilder::new("greenwave test, traces of a built program", SCHEMA);
    put_declaration(&mut key, mode, incomplete, test, environment, tools);
    key.text(&test.name);
    key.bytes(launch.program.as_os_str().as_encoded_bytes());
    key.bytes(launch.directory.as_os_str().as_encoded_bytes());
    key.count(launch.arguments.len());
    for argument in &launch.arguments {
        key.bytes(argument.as_encoded_bytes());
    }
    for variables in [&launch.variables, &launch.replaced] {
        key.count(variables.len());
        for (name, value) in variables {
            key.bytes(name.as_encoded_bytes()).bytes(value.as_encoded_bytes());
        }
    }
    key.finish()
}

/// Returns the key of a trace, which tests with the same trace share.
pub(crate) fn trace(set: &DiscoveredDeps) -> Key {
    KeyBuilder::new("greenwave test, trace", SCHEMA).bytes(&set.encode()).finish()
}

/// Returns the key of the result of a test whose list of traces has the key `traces`, if the paths
/// of this trace have these states.
pub(crate) fn by_trace(traces: &Key, trace: &Key, states: &[u8; 32]) -> Key {
    KeyBuilder::new("greenwave test, by trace", SCHEMA).key(traces).key(trace).bytes(states).finish()
}

/// Returns the key of the record of the files that tests of the project in this directory write.
pub(crate) fn written(project: &Path) -> Key {
    let path = project.as_os_str().as_encoded_bytes();
    KeyBuilder::new("greenwave test, files that tests write", SCHEMA).bytes(path).finish()
}

fn put_declaration(
    key: &mut KeyBuilder,
    mode: KeyMode,
    incomplete: IncompleteMode,
    test: &Test,
    environment: &[(&str, &OsStr)],
    tools: &[[u8; 32]],
) {
    key.number(mode as u64);
    let (is_root, umask) = inherited();
    key.number(is_root.into()).number(umask.into());
    for limit in resource_limits() {
        key.number(limit);
    }
    // A harness may start another process than the command, and with other variables.
    key.text(test.harness.as_str());
    key.count(test.command.len());
    for word in &test.command {
        key.text(word);
    }
    key.bytes(test.directory.as_os_str().as_encoded_bytes());
    key.count(environment.len());
    for (name, value) in environment {
        key.text(name).bytes(value.as_encoded_bytes());
    }
    key.count(test.set.len());
    for (name, value) in &test.set {
        key.text(name).text(value);
    }
    key.count(test.outputs.len());
    for pattern in &test.outputs {
        key.text(pattern);
    }
    if let Some(reports) = &test.reports {
        key.text("reports").count(reports.paths.len()).count(reports.select.len());
        for text in reports.paths.iter().chain(&reports.select) {
            key.text(text);
        }
    }
    key.count(tools.len());
    for tool in tools {
        key.bytes(tool);
    }
    key.count(test.servers.len());
    for server in &test.servers {
        key.text(server);
    }
    key.number(u64::from(incomplete == IncompleteMode::Refuse));
}

/// Returns the key of a test's reads beyond its declared inputs.
///
/// Covers only the parts that the first keys of all results of the test share, so no result can
/// have a key that this one does not belong to: neither the name nor the patterns of inputs, which
/// first keys do not cover, and nothing that a later run of the test may change, such as variables.
pub(crate) fn reads_more(test: &Test) -> Key {
    let mut key = KeyBuilder::new("greenwave test, reads more than it declares", SCHEMA);
    key.bytes(test.directory.as_os_str().as_encoded_bytes()).count(test.command.len());
    for word in &test.command {
        key.text(word);
    }
    key.finish()
}

/// Returns the attributes that a test inherits from this process and that keys cover: whether the
/// user is root, and the umask.
///
/// The umask is `u32::MAX` where `/proc/self/status` does not report it.
pub(crate) fn inherited() -> (bool, u32) {
    static INHERITED: OnceLock<(bool, u32)> = OnceLock::new();
    *INHERITED.get_or_init(|| {
        // `umask(2)` can only be read by setting it, which other threads would notice.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
        (rustix::process::geteuid().is_root(), umask.unwrap_or(u32::MAX))
    })
}

/// Returns the resource limits that a test inherits from this process and that keys cover: the soft
/// and hard limits of processor time, file size, data, stack, address space and open files.
///
/// All machines have the same defaults, so machines share results unless somebody has set a limit.
/// The limit of open files is an exception: it counts up to the usual 1,024.
pub(crate) fn resource_limits() -> [u64; 12] {
    static LIMITS: OnceLock<[u64; 12]> = OnceLock::new();
    *LIMITS.get_or_init(|| {
        let mut limits = [u64::MAX; 12];
        let counted = [
            (Resource::Cpu, u64::MAX),
            (Resource::Fsize, u64::MAX),
            (Resource::Data, u64::MAX),
            (Resource::Stack, u64::MAX),
            (Resource::As, u64::MAX),
            (Resource::Nofile, OPEN_FILES_USUAL),
        ];
        for (pair, (resource, max)) in limits.chunks_mut(2).zip(counted) {
            let limit = getrlimit(resource);
            pair[0] = limit.current.unwrap_or(u64::MAX).min(max);
            pair[1] = limit.maximum.unwrap_or(u64::MAX).min(max);
        }
        limits
    })
}

/// Returns the key that follows `key` in the chain.
///
/// `states` is the digest of the current states of the dependencies in the record of `key`.
pub(crate) fn next(key: &Key, states: &[u8; 32]) -> Key {
    KeyBuilder::new("greenwave test, further", SCHEMA).bytes(key.as_bytes()).bytes(states).finish()
}

/// Returns the key of a failure of the test with this key.
pub(crate) fn failure(key: &Key) -> Key {
    KeyBuilder::new("greenwave test, failed", SCHEMA).bytes(key.as_bytes()).finish()
}
