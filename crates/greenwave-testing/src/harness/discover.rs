//! Discovers the tests of a project, and stores the result until something that it depends on
//! changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::discovery::{Discovery, DiscoveryNote};
use super::discovery_state::{DiscoveryState, HarnessFiles, add};
use super::guarded::guarded;
use super::project::Project;
use super::registry::Harnesses;
use crate::boxed::boxed;
use crate::results::state::{StateDirectory, StateFile};
use crate::run::blocking::blocking;
use crate::{Environment, Error, Harness};
use greenwave_inputs::{
    DurableDirectories, FileStamp, FoundFile, Selection, UserKey, codec, list_files, list_files_durably,
    now_ns,
};

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
struct ProjectState {
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
/// removed, nothing that the harness's [`DiscoveryInputs`](crate::DiscoveryInputs) name changes,
/// and the running program, which contains the harnesses, stays the same file. The key seals it: a
/// result that somebody else has put there is not used.
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
) -> Result<ProjectState, Error> {
    let found = list_files(root, &[&Selection::everything()])?;
    let keys = keys(program, root, harnesses, environment, &found);
    Ok(ProjectState { files: found.into_iter().map(|file| file.path).collect(), keys })
}

/// Computes the keys of all harnesses for the files of a project.
fn keys(
    program: Option<&Path>,
    root: &Path,
    harnesses: &Harnesses,
    environment: &Environment,
    found: &[FoundFile],
) -> Vec<HarnessKey> {
    let mut names = blake3::Hasher::new();
    names.update(&VERSION.to_le_bytes());
    for file in found {
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
    let key = |harness: &Arc<dyn Harness>| {
        let (mut hasher, inputs) = (names.clone(), harness.discovery_inputs());
        let files = HarnessFiles::of(&inputs, found);
        let is_racy = !files.hash(&mut hasher, root, &inputs, environment, at);
        HarnessKey { key: hasher.finalize().to_hex().to_string(), is_racy }
    };
    harnesses.iter().map(key).collect()
}

/// The state on which the stored discoveries of a project depend.
#[derive(Debug)]
pub(crate) struct StoredState {
    /// Everything besides the names of files.
    pub(crate) state: DiscoveryState,
    /// The directories and ignore files whose stamps show whether the names are the same.
    pub(crate) directories: DurableDirectories,
}

/// Returns the present state of a project if the stored discoveries of all harnesses belong to it,
/// and if later runs will see its changes.
pub(crate) fn stored_state(
    directory: &StateDirectory,
    root: &Path,
    harnesses: &Harnesses,
    environment: &Environment,
) -> Option<StoredState> {
    let program = std::env::current_exe().ok()?;
    let (found, directories) = list_files_durably(root, &[&Selection::everything()]).ok()?;
    let files = harnesses.iter().map(|harness| HarnessFiles::of(&harness.discovery_inputs(), &found));
    let state = DiscoveryState::read(files.collect(), root, harnesses, environment, now_ns())?;
    // Read after the state, so that a change before it belongs to other keys than the stored ones.
    let keys = keys(Some(&program), root, harnesses, environment, &found);
    let stored: Stored = directory.load_json(StateFile::Discoveries);
    let mut all = harnesses.iter().zip(keys);
    let are_stored = all.all(|(harness, HarnessKey { key, .. })| {
        stored.harnesses.get(harness.name()).is_some_and(|earlier| earlier.key == key)
    });
    are_stored.then_some(StoredState { state, directories: directories? })
}

#[cfg(test)]
mod tests;
