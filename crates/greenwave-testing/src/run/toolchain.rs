//! Resolves the program of a command and computes its toolchain fingerprint.

mod own_files;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::results::state::{StateDirectory, StateFile};
use crate::run::isolation::tool_homes;
use crate::{Environment, Error, Tracer};
use greenwave_inputs::StatCache;
use greenwave_inputs::hash_file;
use greenwave_inputs::{AccessKind, DiscoveredDeps, PathStates};
use greenwave_inputs::{FileStamp, now_ns};
use own_files::own_files;

/// Version commands of programs that may be shims. The bytes of a shim do not change when the
/// toolchain behind it does.
const PROBES: [(&str, &[&[&str]]); 6] = [
    ("cargo", &[&["cargo", "-V"], &["rustc", "-vV"]]),
    ("rustc", &[&["rustc", "-vV"]]),
    ("python", &[&["python", "-VV"]]),
    ("python3", &[&["python3", "-VV"]]),
    ("node", &[&["node", "-v"]]),
    ("npm", &[&["node", "-v"], &["npm", "-v"]]),
];

/// Names of the programs in [`PROBES`]. Their versions depend on the directory they are started in.
pub(crate) const PROBED: [&str; 6] = ["cargo", "rustc", "python", "python3", "node", "npm"];

/// Computes toolchain fingerprints: the hash of the program file, and for the shim of a toolchain
/// the output of its version commands.
///
/// Hashes are cached by inode, size and timestamps. Versions are determined once per value and
/// directory, since a directory can select its own toolchain. They are cached across runs until a
/// file changes that the version command accessed.
#[derive(Debug)]
pub(crate) struct Tools {
    index: Arc<Mutex<StatCache>>,
    versions: tokio::sync::Mutex<HashMap<VersionKey, Arc<[u8]>>>,
    cached: Mutex<VersionCache>,
}

/// Versions from earlier runs, by a hash of the command, environment and directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct VersionCache {
    versions: BTreeMap<String, ToolVersion>,
    #[serde(skip)]
    is_changed: bool,
}

/// The output of a version command, valid until one of its accesses has another result.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ToolVersion {
    text: Vec<u8>,
    accesses: Vec<(PathBuf, bool)>,
    states: String,
}

/// Files with which version managers select the version of a tool, beside those of rustup.
const SELECTORS: [&str; 5] =
    [".python-version", ".tool-versions", "mise.toml", ".mise.toml", ".node-version"];

/// Other settings in the directory of a project or above that version commands read.
const SETTINGS: [&str; 5] =
    [".npmrc", ".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];

/// Maximum number of cached versions.
const VERSIONS_MAX: usize = 64;

/// The directory, if it selects its own toolchain; the visible variables; the index in [`PROBES`].
type VersionKey = (PathBuf, Vec<u8>, usize);

impl Tools {
    pub(crate) fn new(index: Arc<Mutex<StatCache>>) -> Self {
        Self { index, versions: tokio::sync::Mutex::default(), cached: Mutex::default() }
    }

    /// Loads the versions that an earlier run has saved.
    pub(crate) fn load(&self, state: &StateDirectory) {
        *self.cached.lock() = state.load_json(StateFile::Tools);
    }

    /// Saves the versions for later runs.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(crate) fn save(&self, state: &StateDirectory) -> Result<(), Error> {
        let mut cached = self.cached.lock();
        if cached.is_changed {
            state.save_json(StateFile::Tools, &*cached)?;
            cached.is_changed = false;
        }
        Ok(())
    }

    /// Returns the hashes that identify the program in the key of a test, which is `traced` or not.
    pub(crate) async fn fingerprint(
        &self,
        program: &Path,
        directory: &Path,
        all: &Environment,
        environment: &[(&str, &OsStr)],
        traced: bool,
    ) -> Result<Vec<[u8; 32]>, Error> {
        let mut parts = vec![self.file(program)?];
        let name = program.file_stem().unwrap_or_default();
        let Some(at) = PROBES.iter().position(|(shim, _)| name == *shim) else { return Ok(parts) };
        let own = || own_files(PROBES[at].0, program, directory, all.get("PATH"));
        match traced.then(own).flatten() {
            Some(files) => {
                for file in files {
                    parts.push(self.file(&file)?);
                }
            }
            None => {
                let version = self.version(at, directory, all, environment).await;
                parts.push(*blake3::hash(&version).as_bytes());
            }
        }
        Ok(parts)
    }

    fn file(&self, program: &Path) -> Result<[u8; 32], Error> {
        let stamp = FileStamp::from_metadata(
            &std::fs::metadata(program).map_err(Error::io("read the metadata of", program))?,
        );
        if let Some(entry) = self.index.lock().lookup(program, &stamp) {
            return Ok(entry.hash);
        }
        let at = now_ns();
        let (entry, stamp) = hash_file(program).map_err(Error::io("read", program))?;
        self.index.lock().insert(program, stamp, entry, at);
        Ok(entry.hash)
    }

    async fn version(
        &self,
        probe: usize,
        directory: &Path,
        all: &Environment,
        environment: &[(&str, &OsStr)],
    ) -> Arc<[u8]> {
        let toolchain = toolchain_file(directory);
        let key = (toolchain.map_or(PathBuf::new(), |_| directory.to_owned()), seen(environment), probe);
        let mut versions = self.versions.lock().await;
        if let Some(version) = versions.get(&key) {
            return Arc::clone(version);
        }
        let query = blake3::hash(
            &[&seen(environment), directory.as_os_str().as_encoded_bytes(), &[probe as u8]].concat(),
        );
        let query = query.to_hex().to_string();
        // No path is inside, so that hashes have absolute paths and all projects share them.
        let states =
            PathStates::new(Path::new(""), Arc::clone(&self.index), greenwave_sandbox::kernel_object_exists);
        let cached = self.cached.lock().versions.get(&query).cloned();
        let version: Arc<[u8]> = match cached.filter(|version| version.is_valid(&states)) {
            Some(version) => version.text.into(),
            None if all.has_other_programs() => Arc::from([]),
            None if all.is_inspecting() && selects_toolchain(directory) => Arc::from([]),
            None if has_endless_settings(directory) => Arc::from([]),
            None => {
                let version = probe_version(probe, directory, all, environment, &states).await;
                let mut cached = self.cached.lock();
                if version.states.is_empty() || cached.versions.len() >= VERSIONS_MAX {
                    cached.versions.remove(&query);
                } else {
                    cached.versions.insert(query, version.clone());
                }
                cached.is_changed = true;
                version.text.into()
            }
        };
        versions.insert(key, Arc::clone(&version));
        version
    }
}

/// Runs the version commands of a program at once, traced where tracing is available.
async fn probe_version(
    probe: usize,
    directory: &Path,
    all: &Environment,
    environment: &[(&str, &OsStr)],
    states: &PathStates,
) -> ToolVersion {
    let began = now_ns();
    let commands = PROBES[probe].1.iter();
    let printed = join_all(commands.map(|command| run_probe(command, directory, all, environment))).await;
    let is_seen = printed.iter().all(|(_, accesses)| accesses.is_some());
    let mut version = ToolVersion { text: Vec::new(), accesses: Vec::new(), states: String::new() };
    for (text, accesses) in printed {
        version.text.extend(text);
        version.accesses.extend(accesses.into_iter().flatten());
    }
    let touched = |(path, names): &(PathBuf, bool)| states.state(path, kind(*names)).1;
    if is_seen && version.accesses.iter().all(|access| touched(access) < began) {
        version.states = version.digest(states);
    }
    version
}

/// Returns the output of a version command, and its accesses if all of them were seen.
async fn run_probe(
    command: &[&str],
    directory: &Path,
    all: &Environment,
    environment: &[(&str, &OsStr)],
) -> (Vec<u8>, Option<Vec<(PathBuf, bool)>>) {
    let mut probe = Command::new(command[0]);
    probe.args(&command[1..]).current_dir(directory).env_clear().envs(environment.iter().copied());
    probe.envs(tool_homes(all));
    // Files of the project choose the program that a launcher like rustup starts.
    if all.confine_probe(&mut probe, directory, Vec::new()).is_err() {
        return (Vec::new(), None);
    }
    let tracing = Tracer::available().and_then(|()| Tracer::default().attach(&mut probe)).ok();
    // A tool that cannot be started has an empty version. The test itself reports the error.
    let text = probe.output().await.map(|output| output.stdout).unwrap_or_default();
    drop(probe);
    let Some(tracing) = tracing else { return (text, None) };
    let reads = tracing.finish().await;
    let accesses = || reads.inputs(&[]).map(|(path, access)| (path.to_owned(), access.listed)).collect();
    (text, reads.incomplete.is_none().then(accesses))
}

fn kind(names: bool) -> AccessKind {
    if names { AccessKind::Names } else { AccessKind::Content }
}

impl ToolVersion {
    fn is_valid(&self, states: &PathStates) -> bool {
        !self.states.is_empty() && self.digest(states) == self.states
    }

    fn digest(&self, states: &PathStates) -> String {
        let accesses = self.accesses.iter().map(|(path, names)| (path.clone(), kind(*names)));
        blake3::Hash::from_bytes(states.digest(&Arc::new(DiscoveredDeps::new(accesses)))).to_hex().to_string()
    }
}

/// Returns the file that `execvp` would execute for the first word of a command. Relative paths are
/// resolved from the command's working directory.
pub(crate) fn resolve(program: &str, directory: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    let usable = |file: &PathBuf| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(directory.join(program)).filter(usable);
    }
    std::env::split_paths(path?).map(|parent| directory.join(parent).join(program)).find(usable)
}

/// Returns whether a file at or above a directory selects a toolchain, which may be a program of
/// the project.
fn selects_toolchain(directory: &Path) -> bool {
    let exists = |name: &&str| directory.ancestors().any(|parent| parent.join(name).exists());
    toolchain_file(directory).is_some() || SELECTORS.iter().any(exists)
}

/// Returns whether a pipe or a device is in the place of settings at or above a directory. A
/// version command would wait for it or read without end.
fn has_endless_settings(directory: &Path) -> bool {
    let is_endless = |name: &&str| {
        let mut found = directory.ancestors().filter_map(|parent| parent.join(name).metadata().ok());
        found.any(|metadata| !metadata.is_file() && !metadata.is_dir())
    };
    SELECTORS.iter().chain(&SETTINGS).any(is_endless)
}

/// Returns the file that selects the Rust toolchain of a directory, searched as rustup does.
fn toolchain_file(directory: &Path) -> Option<PathBuf> {
    let names = ["rust-toolchain.toml", "rust-toolchain"];
    let mut candidates = directory.ancestors().flat_map(|parent| names.map(|name| parent.join(name)));
    candidates.find(|file| file.exists())
}

fn seen(environment: &[(&str, &OsStr)]) -> Vec<u8> {
    let fields = environment.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_encoded_bytes()]);
    fields.flat_map(|field| [field, b"\0"].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_of_programs_that_tell_versions_have_absolute_paths() {
        if Tracer::available().is_err() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let shim = directory.path().join("python3");
        std::fs::write(&shim, "#!/bin/sh\necho 3\n").unwrap();
        std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([directory.path(), Path::new("/bin")]).unwrap();
        let environment = Environment::new([("PATH".into(), path.clone())]);
        let index = Arc::new(Mutex::new(StatCache::default()));
        let tools = Tools::new(Arc::clone(&index));
        let visible = [("PATH", path.as_os_str())];
        tools.fingerprint(&shim, directory.path(), &environment, &visible, true).await.unwrap();
        let shell = Path::new("/bin/sh").canonicalize().unwrap();
        let stamp = FileStamp::from_metadata(&shell.metadata().unwrap());
        assert!(index.lock().lookup(&shell, &stamp).is_some());
    }
}
