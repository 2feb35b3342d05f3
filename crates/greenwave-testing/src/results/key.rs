//! The keys that results stand under. Knows nothing of results.
//!
//! The first key is over everything that is known of a test before it runs. Under it stands either the result, or what a run was seen to look at
//! beside that; then the next key is over the first and the state of what was looked at, and so on. A test that looks at the same things whenever
//! what it has looked at so far is the same, which is what programs do, finds its result at the end.

use std::ffi::OsStr;
use std::sync::OnceLock;

use greenwave_cache::{Key, KeyBuilder};

use crate::{Manifest, Test};

/// Version of the keys' fields and of the stored results. It goes up with every change of either.
pub const SCHEMA: u32 = 4;

/// How closely tests are watched. Results of one kind are none of another: what was not seen cannot have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyMode {
    /// Not at all.
    Untraced = 0,
    /// What they look at is seen.
    Traced = 1,
    /// They are kept from reading what they have not declared.
    Strict = 2,
    /// Both.
    StrictTraced = 3,
}

/// The key over what is known before a test runs.
pub(crate) fn first(
    mode: KeyMode,
    test: &Test,
    environment: &[(&str, &OsStr)],
    tools: &[[u8; 32]],
    inputs: &Manifest,
) -> Key {
    let mut key = KeyBuilder::new("greenwave test", SCHEMA);
    key.number(mode as u64);
    let (rights, mask) = inherited();
    key.number(rights.into()).number(mask.into());
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
    key.count(tools.len());
    for tool in tools {
        key.bytes(tool);
    }
    key.bytes(inputs.digest());
    key.finish()
}

/// The key under which stands that a test reads more than it declares, whatever its inputs are: another declaration is another test.
pub(crate) fn reads_more(test: &Test) -> Key {
    let mut key = KeyBuilder::new("greenwave test, reads more than it declares", SCHEMA);
    let folders = test.directories.iter().map(|folder| folder.as_os_str().as_encoded_bytes());
    let directory = test.directory.as_os_str().as_encoded_bytes();
    let texts = |texts: &'_ [String]| -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.clone().into_bytes()).collect()
    };
    let lists = [texts(&test.command), texts(&test.inputs), texts(&test.outputs)];
    key.text(&test.name).bytes(directory);
    for list in lists.iter().chain([&folders.map(<[u8]>::to_vec).collect()]) {
        key.count(list.len());
        for part in list {
            key.bytes(part);
        }
    }
    key.finish()
}

/// What a test has of the process that starts it, beside what it is given: whether it may do everything, and the bits that new files lack.
pub(crate) fn inherited() -> (bool, u32) {
    static INHERITED: OnceLock<(bool, u32)> = OnceLock::new();
    *INHERITED.get_or_init(|| {
        // The call that tells the mask sets it.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let mask = mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
        (rustix::process::geteuid().is_root(), mask.unwrap_or(u32::MAX))
    })
}

/// The key that follows one under which stands what was looked at.
pub(crate) fn next(key: &Key, states: &[u8; 32]) -> Key {
    KeyBuilder::new("greenwave test, further", SCHEMA).bytes(key.as_bytes()).bytes(states).finish()
}
