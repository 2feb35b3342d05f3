//! Which program a command means, and what identifies it. Knows nothing of tests.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::run::isolation::tool_homes;
use crate::run::workspace::blocking;
use crate::{Environment, Error, Tracer};
use greenwave_inputs::hash_file;
use greenwave_inputs::{AccessKind, DiscoveredDeps, PathStates};
use greenwave_inputs::{Stamp, now};
use greenwave_inputs::{StatCache, replace};

/// What a program's results depend on, for programs that are a front of something else: a shim's own
/// bytes do not change when the tool chain behind it does.
const PROBES: [(&str, &[&[&str]]); 6] = [
    ("cargo", &[&["cargo", "-V"], &["rustc", "-vV"]]),
    ("rustc", &[&["rustc", "-vV"]]),
    ("python", &[&["python", "-VV"]]),
    ("python3", &[&["python3", "-VV"]]),
    ("node", &[&["node", "-v"]]),
    ("npm", &[&["node", "-v"], &["npm", "-v"]]),
];

/// The same by name: what these are depends on the folder that they are started in.
pub(crate) const PROBED: [&str; 6] = ["cargo", "rustc", "python", "python3", "node", "npm"];

/// Programs with what identifies them: the hash of the file, and for the front of a tool chain what it
/// answers when asked for its version.
///
/// A hash is remembered for as long as the file's inode, size and times stay the same; versions are
/// asked for once in the life of this value, in each folder, since a folder can choose its tool chain, and are remembered for as long as nothing
/// changes that the tool looked at to answer.
#[derive(Debug)]
pub(crate) struct Tools {
    index: Arc<Mutex<StatCache>>,
    versions: tokio::sync::Mutex<HashMap<VersionKey, Arc<[u8]>>>,
    remembered: Mutex<VersionCache>,
}

/// What tools have answered in earlier runs, by a hash of the question.
#[derive(Debug, Default, Serialize, Deserialize)]
struct VersionCache {
    answers: BTreeMap<String, ToolVersion>,
    #[serde(skip)]
    is_changed: bool,
}

/// What a tool has answered, good for as long as everything that it looked at is as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ToolVersion {
    text: Vec<u8>,
    looks: Vec<(PathBuf, bool)>,
    states: String,
}

/// More answers are not remembered.
const VERSIONS_MAX: usize = 64;

/// The folder, if it chooses its own tool chain; the variables that are seen; the program's place in [`PROBES`].
type VersionKey = (PathBuf, Vec<u8>, usize);

impl Tools {
    pub(crate) fn new(index: Arc<Mutex<StatCache>>) -> Self {
        Self { index, versions: tokio::sync::Mutex::default(), remembered: Mutex::default() }
    }

    /// Takes up what an earlier run saved.
    pub(crate) fn load(&self, file: &Path) {
        let read = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        *self.remembered.lock() = read.unwrap_or_default();
    }

    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(crate) fn save(&self, file: &Path) -> Result<(), Error> {
        let mut remembered = self.remembered.lock();
        if remembered.is_changed {
            replace(file, &serde_json::to_vec(&*remembered).unwrap_or_default())?;
            remembered.is_changed = false;
        }
        Ok(())
    }

    /// Everything that identifies the program, to be put into a key.
    pub(crate) async fn fingerprint(
        &self,
        program: &Path,
        directory: &Path,
        all: &Environment,
        environment: &[(&str, &OsStr)],
    ) -> Result<Vec<[u8; 32]>, Error> {
        let mut parts = vec![self.file(program)?];
        let name = program.file_stem().unwrap_or_default();
        if let Some(at) = PROBES.iter().position(|(known, _)| name == *known) {
            parts.push(*blake3::hash(&self.version(at, directory, all, environment).await).as_bytes());
        }
        Ok(parts)
    }

    fn file(&self, program: &Path) -> Result<[u8; 32], Error> {
        let stamp = Stamp::of(&std::fs::metadata(program).map_err(Error::io("look at", program))?);
        if let Some(entry) = self.index.lock().find(program, &stamp) {
            return Ok(entry.hash);
        }
        let at = now();
        let (entry, stamp) = hash_file(program, 0).map_err(Error::io("read", program))?;
        self.index.lock().put(program, stamp, entry, at);
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
        if let Some(known) = versions.get(&key) {
            return Arc::clone(known);
        }
        let question = blake3::hash(
            &[&seen(environment), directory.as_os_str().as_encoded_bytes(), &[probe as u8]].concat(),
        );
        let question = question.to_hex().to_string();
        let states =
            PathStates::new(Path::new("/"), Arc::clone(&self.index), greenwave_sandbox::object_exists);
        let known = self.remembered.lock().answers.get(&question).cloned();
        let answers: Arc<[u8]> = match known.filter(|answer| answer.is_good(&states)) {
            Some(answer) => answer.text.into(),
            None => {
                let answer = ask(probe, directory, all, environment, &states).await;
                let mut remembered = self.remembered.lock();
                if answer.states.is_empty() || remembered.answers.len() >= VERSIONS_MAX {
                    remembered.answers.remove(&question);
                } else {
                    remembered.answers.insert(question, answer.clone());
                }
                remembered.is_changed = true;
                answer.text.into()
            }
        };
        versions.insert(key, Arc::clone(&answers));
        answers
    }
}

/// Asks a tool, and watches what it looks at for its answer, where that can be seen.
async fn ask(
    probe: usize,
    directory: &Path,
    all: &Environment,
    environment: &[(&str, &OsStr)],
    states: &PathStates,
) -> ToolVersion {
    let began = now();
    let (mut text, mut looks, mut is_seen) = (Vec::new(), Vec::new(), true);
    for command in PROBES[probe].1 {
        let mut probe = Command::new(command[0]);
        probe.args(&command[1..]).current_dir(directory).env_clear().envs(environment.iter().copied());
        probe.envs(tool_homes(all));
        let tracing = Tracer::available().and_then(|()| Tracer::default().attach(&mut probe)).ok();
        // A tool that does not answer is identified by that; the test itself will tell more.
        text.extend(probe.output().await.map(|output| output.stdout).unwrap_or_default());
        drop(probe);
        match tracing {
            None => is_seen = false,
            Some(tracing) => {
                let reads = blocking(move || tracing.finish()).await;
                is_seen &= reads.incomplete.is_none();
                let inputs = reads.inputs(&[]).map(|(path, access)| (path.to_owned(), access.listed));
                looks.extend(inputs);
            }
        }
    }
    let mut answer = ToolVersion { text, looks, states: String::new() };
    let touched = |(path, names): &(PathBuf, bool)| states.state(path, look(*names)).1;
    if is_seen && answer.looks.iter().all(|look| touched(look) < began) {
        answer.states = answer.digest(states);
    }
    answer
}

fn look(names: bool) -> AccessKind {
    if names { AccessKind::Names } else { AccessKind::Content }
}

impl ToolVersion {
    fn is_good(&self, states: &PathStates) -> bool {
        !self.states.is_empty() && self.digest(states) == self.states
    }

    fn digest(&self, states: &PathStates) -> String {
        let looks = self.looks.iter().map(|(path, names)| (path.clone(), look(*names)));
        blake3::Hash::from_bytes(states.digest(&Arc::new(DiscoveredDeps::new(looks)))).to_hex().to_string()
    }
}

/// The file that a command's first word means: as `execvp` finds it, with relative paths taken from the
/// folder the command runs in.
pub(crate) fn resolve(program: &str, directory: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    let usable = |file: &PathBuf| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(directory.join(program)).filter(usable);
    }
    std::env::split_paths(path?).map(|folder| directory.join(folder).join(program)).find(usable)
}

/// A folder's own choice of a Rust tool chain, looked for as rustup does.
fn toolchain_file(directory: &Path) -> Option<PathBuf> {
    let names = ["rust-toolchain.toml", "rust-toolchain"];
    let mut candidates = directory.ancestors().flat_map(|folder| names.map(|name| folder.join(name)));
    candidates.find(|file| file.exists())
}

fn seen(environment: &[(&str, &OsStr)]) -> Vec<u8> {
    let fields = environment.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_encoded_bytes()]);
    fields.flat_map(|field| [field, b"\0"].concat()).collect()
}
