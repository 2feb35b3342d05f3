//! Finds out which tests a project has. Knows nothing of running them.

mod collect;
mod found;
mod go;
mod ini;
mod npm;
mod pytest;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use found::{Discovery, Note};

use crate::fingerprint::{bytes, read_file};
use crate::index::replace;
use crate::listing;
use crate::select::Selection;
use crate::state::StateFolder;
use crate::tool::resolve;
use crate::world::blocking;
use crate::{Environment, Error, cargo};

/// Files whose content says which tests of cargo there are.
const MANIFESTS: [&str; 5] = ["Cargo.toml", "config", "config.toml", "rust-toolchain", "rust-toolchain.toml"];

/// Programs that are asked for tests, or whose absence is told.
const PROGRAMS: [&str; 4] = ["cargo", "python3", "go", "npm"];

/// Version of what is remembered.
const VERSION: u32 = 1;
const REMEMBERED: &str = "found.json";

/// What was found when everything was as this hash says.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: String,
    found: Discovery,
}

/// The tests of a project, found without being told of them. What was found is remembered for as long as no file comes or goes and none that says
/// something of tests changes.
///
/// # Errors
/// [`Error::Discover`] with what is wrong in the project's files, or why the runner that knows cannot be asked.
pub async fn discover(project: &Path, environment: &Environment) -> Result<Discovery, Error> {
    let root = project.canonicalize().map_err(Error::io("find", project))?;
    let file = StateFolder::open(&root)?.file(REMEMBERED);
    let (at, path) = (root.clone(), environment.get("PATH").map(ToOwned::to_owned));
    let (files, key) = blocking(move || look(&at, path.as_deref())).await?;
    let read = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
    if let Some(remembered) = read.filter(|remembered| remembered.key == key) {
        return Ok(remembered.found);
    }
    let found = find(&root, files, environment).await?;
    let remembered = Remembered { key, found };
    if let Err(error) = replace(&file, &serde_json::to_vec(&remembered).unwrap_or_default()) {
        tracing::warn!(%error, "which tests there are is not remembered");
    }
    Ok(remembered.found)
}

async fn find(root: &Path, files: Vec<PathBuf>, environment: &Environment) -> Result<Discovery, Error> {
    let mut found = Discovery::default();
    for folder in outermost(&files, "Cargo.toml") {
        if resolve("cargo", root, environment.get("PATH")).is_none() {
            found.notes.push(Note::NoRunner { program: "cargo".to_owned(), tests: 1 });
            break;
        }
        found.tests.extend(cargo::discover(root, folder, environment).await?);
    }
    let (at, environment) = (root.to_owned(), environment.clone());
    let others = blocking(move || Discovery::find(&at, &files, &environment)).await?;
    found.tests.extend(others.tests);
    found.notes.extend(others.notes);
    Ok(found)
}

/// The folders that have a file of this name, but for those below another.
fn outermost<'f>(files: &'f [PathBuf], name: &str) -> Vec<&'f Path> {
    let mut folders: Vec<&Path> = files
        .iter()
        .filter(|file| file.file_name().is_some_and(|it| it == name))
        .filter_map(|it| it.parent())
        .collect();
    folders.sort_unstable_by_key(|folder| folder.components().count());
    let mut kept: Vec<&Path> = Vec::new();
    for folder in folders {
        if !kept.iter().any(|above| folder.starts_with(above)) {
            kept.push(folder);
        }
    }
    kept
}

/// The project's files, and a hash over their names, over what those say that say something of tests, and over who can be asked.
fn look(root: &Path, path: Option<&std::ffi::OsStr>) -> Result<(Vec<PathBuf>, String), Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&VERSION.to_le_bytes());
    let mut files = Vec::new();
    for found in listing::list(root, &[&Selection::everything()])? {
        hasher.update(&(bytes(&found.path).len() as u64).to_le_bytes()).update(bytes(&found.path));
        let name = found.path.file_name().unwrap_or_default();
        if MANIFESTS.iter().chain(&Discovery::MANIFESTS).any(|manifest| name == *manifest)
            && let Ok((entry, _)) = read_file(&root.join(&found.path), 0)
        {
            hasher.update(&entry.hash);
        }
        files.push(found.path);
    }
    for program in PROGRAMS {
        let place = resolve(program, root, path).unwrap_or_default();
        hasher.update(&(bytes(&place).len() as u64).to_le_bytes()).update(bytes(&place));
    }
    Ok((files, hasher.finalize().to_hex().to_string()))
}
