//! Discovers the tests of a project, and stores the result until something that it depends on
//! changes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular;
use serde::{Deserialize, Serialize};

use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::guarded::guarded;
use super::project::{MANIFEST_BYTES_MAX, Project};
use super::registry::Harnesses;
use crate::boxed::boxed;
use crate::results::state::{StateDirectory, StateFile};
use crate::run::blocking::blocking;
use crate::run::toolchain::resolve;
use crate::{Environment, Error};
use greenwave_inputs::{FileStamp, FoundFile, Selection, UserKey, codec, hash_file, list_files, now_ns};

/// Version of the file of stored discoveries.
const VERSION: u32 = 5;

/// Discoveries by the name of the harness.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    harnesses: BTreeMap<String, StoredDiscovery>,
}

/// A discovery, and the key of everything that it depends on.
#[derive(Serialize, Deserialize)]
struct StoredDiscovery {
    key: String,
    discovery: Discovery,
}

/// The state that discovery depends on.
struct DiscoveryState {
    files: Vec<PathBuf>,
    /// One key for each harness.
    keys: Vec<HarnessKey>,
}

struct HarnessKey {
    key: String,
    /// Whether a source changed so recently that a further change might not be noticed.
    is_racy: bool,
}

/// Discovers the tests of a project with each of the harnesses.
///
/// A result is stored in the project's state directory, and reused while no file is added or
/// removed, nothing that the harness's [`DiscoveryInputs`] name changes, and the running program,
/// which contains the harnesses, stays the same file. The key seals it: a result that somebody else
/// has put there is not used.
///
/// # Errors
/// [`Error::Discover`] if a manifest is invalid or a harness's program fails; [`Error::Io`] if the
/// project cannot be read.
pub fn discover<'a>(
    project: &'a Path,
    harnesses: &'a Harnesses,
    environment: &'a Environment,
    key: &'a UserKey,
) -> impl Future<Output = Result<Discovery, Error>> + Send + 'a {
    boxed(discover_as(std::env::current_exe().ok(), project, harnesses, environment, key))
}

/// Like [`discover`], in a program whose file is given. Without a file, uses no stored result.
async fn discover_as(
    program: Option<PathBuf>,
    project: &Path,
    harnesses: &Harnesses,
    environment: &Environment,
    key: &UserKey,
) -> Result<Discovery, Error> {
    let root = project.canonicalize().map_err(Error::io("find", project))?;
    let directory = StateDirectory::open(&root, key)?;
    let (at, of, variables) = (root.clone(), harnesses.clone(), environment.clone());
    let state = blocking(move || read_state(program.as_deref(), &at, &of, &variables)).await?;
    let mut stored: Stored = directory.load_json(StateFile::Discoveries);
    let project = Project::new(&root, state.files, environment);
    let (mut all, mut has_changed) = (Discovery::default(), false);
    for (harness, HarnessKey { key, is_racy }) in harnesses.iter().zip(state.keys) {
        let earlier = stored.harnesses.get(harness.name()).filter(|earlier| earlier.key == key);
        let discovery = match earlier {
            Some(earlier) => earlier.discovery.clone(),
            None => {
                let discovery = guarded(&**harness, async { harness.discover(&project).await }).await?;
                // A manifest may be unreadable for a reason that the key does not cover, such as a
                // package that could not be downloaded.
                let is_whole = !discovery.notes.iter().any(DiscoveryNote::is_unreadable_manifest);
                if is_whole && !is_racy && !environment.is_inspecting() {
                    let new = StoredDiscovery { key, discovery: discovery.clone() };
                    stored.harnesses.insert(harness.name().to_owned(), new);
                    has_changed = true;
                }
                discovery
            }
        };
        all.extend(discovery);
    }
    if has_changed && let Err(error) = directory.save_json(StateFile::Discoveries, &stored) {
        tracing::warn!(%error, "cannot store which tests were discovered");
    }
    if directory.has_foreign_files() {
        all.notes.push(DiscoveryNote::ForeignState);
    }
    all.make_names_unique();
    Ok(all)
}

impl Harnesses {
    /// Discovers the tests of a project with each of the harnesses, without storing the result.
    ///
    /// # Errors
    /// As [`discover`].
    pub fn discover<'a>(
        &'a self,
        project: &'a Project,
    ) -> impl Future<Output = Result<Discovery, Error>> + Send + 'a {
        boxed(self.discover_each(project))
    }

    async fn discover_each(&self, project: &Project) -> Result<Discovery, Error> {
        let mut all = Discovery::default();
        for harness in self.iter() {
            let discovery = guarded(&**harness, async { harness.discover(project).await }).await?;
            all.extend(discovery);
        }
        all.make_names_unique();
        Ok(all)
    }
}

/// Lists the project's files and computes the keys of all harnesses.
fn read_state(
    program: Option<&Path>,
    root: &Path,
    harnesses: &Harnesses,
    environment: &Environment,
) -> Result<DiscoveryState, Error> {
    let found = list_files(root, &[&Selection::everything()])?;
    let mut names = blake3::Hasher::new();
    names.update(&VERSION.to_le_bytes());
    for file in &found {
        add(&mut names, codec::path_bytes(&file.path));
    }
    let at = now_ns();
    // Another version of a harness may find other tests. The program's file changes with each
    // version, unlike a number that somebody must raise.
    let mut identity = at.to_le_bytes().to_vec();
    if let Some(metadata) = program.and_then(|program| program.metadata().ok()) {
        identity.clear();
        FileStamp::from_metadata(&metadata).encode(&mut identity);
    }
    add(&mut names, &identity);
    let keys = harnesses.iter().map(|harness| {
        let inputs = harness.discovery_inputs();
        let (mut hasher, mut stamps, mut is_racy) = (names.clone(), Vec::new(), false);
        for file in &found {
            let name = file.path.file_name().unwrap_or_default();
            if inputs.manifests.iter().any(|manifest| name == *manifest)
                && let Ok((entry, _)) = hash_file(&root.join(&file.path))
            {
                hasher.update(&entry.hash);
                let directory = root.join(file.path.parent().unwrap_or(&file.path));
                let exist = inputs.checked.iter().map(|path| directory.join(path).exists().into());
                hasher.update(&exist.collect::<Vec<u8>>());
            }
            if (inputs.is_source)(&file.path) {
                is_racy |= !add_source(&mut stamps, root, file, at);
            }
        }
        add_programs(&mut hasher, root, &inputs, environment);
        add(&mut hasher, &stamps);
        HarnessKey { key: hasher.finalize().to_hex().to_string(), is_racy }
    });
    Ok(DiscoveryState { keys: keys.collect(), files: found.iter().map(|file| file.path.clone()).collect() })
}

/// Adds the stamp of a source, or the content of one in memory. Returns whether this will show a
/// later change of the source.
fn add_source(stamps: &mut Vec<u8>, root: &Path, file: &FoundFile, at: i64) -> bool {
    if !file.stamp.is_in_memory() {
        file.stamp.encode(stamps);
        return !file.stamp.is_racy(at);
    }
    let content = hash_file(&root.join(&file.path));
    content.is_ok_and(|(entry, _)| {
        stamps.extend(entry.hash);
        true
    })
}

/// Adds the paths and stamps of a harness's programs, its settings, and the values of its
/// variables.
fn add_programs(
    hasher: &mut blake3::Hasher,
    root: &Path,
    inputs: &DiscoveryInputs,
    environment: &Environment,
) {
    let path: Option<&OsStr> = environment.get("PATH");
    for program in inputs.programs {
        let path = resolve(program, root, path).unwrap_or_default();
        let mut stamp = Vec::new();
        if let Ok(metadata) = std::fs::metadata(&path) {
            FileStamp::from_metadata(&metadata).encode(&mut stamp);
        }
        add(hasher, codec::path_bytes(&path));
        add(hasher, &stamp);
    }
    for settings in (inputs.settings)(environment) {
        add(hasher, &read_regular(settings, MANIFEST_BYTES_MAX).unwrap_or_default());
    }
    let variables: Vec<String> = inputs.variables.iter().map(|name| (*name).to_owned()).collect();
    for (name, value) in environment.visible(&variables).into_iter().filter(|_| !variables.is_empty()) {
        add(hasher, name.as_bytes());
        add(hasher, value.as_encoded_bytes());
    }
}

/// Adds a field with its length, so that fields cannot run into each other.
fn add(hasher: &mut blake3::Hasher, field: &[u8]) {
    hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
}

#[cfg(test)]
mod tests;
