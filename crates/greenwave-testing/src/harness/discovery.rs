//! Finds out which tests a project has. Knows nothing of running them.

mod collect;
mod found;
mod go;
mod imports;
mod ini;
mod npm;
mod pytest;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use found::{Discovery, DiscoveryNote};

use imports::Imports;

use crate::harness::cargo;
use crate::results::state::StateDirectory;
use crate::run::toolchain::resolve;
use crate::run::workspace::blocking;
use crate::test::Harness;
use crate::{Environment, Error};
use greenwave_inputs as listing;
use greenwave_inputs::Selection;
use greenwave_inputs::replace;
use greenwave_inputs::{RACY, Stamp, now};
use greenwave_inputs::{bytes, hash_file};

/// Files whose content says which tests of cargo there are.
const MANIFESTS: [&str; 5] = ["Cargo.toml", "config", "config.toml", "rust-toolchain", "rust-toolchain.toml"];

/// Programs that are asked for tests, or whose absence is told.
const PROGRAMS: [&str; 4] = ["cargo", "python3", "go", "npm"];

/// Version of what is remembered.
const VERSION: u32 = 1;
const REMEMBERED: &str = "found.json";
const IMPORTS: &str = "imports.json";

/// What was found when everything was as this hash says.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: String,
    found: Discovery,
}

/// What packages of Go are built from when everything was as this hash says.
#[derive(Serialize, Deserialize)]
struct RememberedImports {
    key: String,
    imports: Imports,
}

/// A look at a project's files.
struct Looked {
    files: Vec<PathBuf>,
    /// A hash over their names, over what those say that say something of tests, and over who can be asked.
    key: String,
    /// A hash over the stamps of Go's code, and of the program.
    code: blake3::Hash,
    /// Whether all of that had rested.
    rests: bool,
}

/// The tests of a project, found without being told of them. What was found is remembered for as long as no file comes or goes and none that says
/// something of tests changes.
///
/// # Errors
/// [`Error::Discover`] with what is wrong in the project's files, or why the runner that knows cannot be asked.
pub async fn discover(project: &Path, environment: &Environment) -> Result<Discovery, Error> {
    let root = project.canonicalize().map_err(Error::io("find", project))?;
    let state = StateDirectory::open(&root)?;
    let file = state.file(REMEMBERED);
    let (at, path) = (root.clone(), environment.get("PATH").map(ToOwned::to_owned));
    let looked = blocking(move || look(&at, path.as_deref())).await?;
    let read = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
    let mut found = match read.filter(|remembered| remembered.key == looked.key) {
        Some(remembered) => remembered.found,
        None => {
            let found = find(&root, looked.files.clone(), environment).await?;
            let remembered = Remembered { key: looked.key.clone(), found };
            remember(&file, &remembered);
            remembered.found
        }
    };
    if found.tests.iter().any(|test| test.harness == Harness::Go) {
        let imports = imports(&root, &state.file(IMPORTS), &looked, &found, environment).await;
        imports.narrow(&mut found.tests, &looked.files);
    }
    Ok(found)
}

/// What the packages of Go in a project are built from. Remembered for as long as no file comes or goes, no code changes, and nothing that `go` goes by.
async fn imports(
    root: &Path,
    file: &Path,
    looked: &Looked,
    found: &Discovery,
    environment: &Environment,
) -> Imports {
    let mut hasher = blake3::Hasher::new();
    hasher.update(looked.key.as_bytes()).update(looked.code.as_bytes());
    for (name, value) in environment.visible(&go::VARIABLES.map(str::to_owned)) {
        for part in [name.as_bytes(), value.as_encoded_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    let key = hasher.finalize().to_hex().to_string();
    let read = std::fs::read(file).ok();
    let read = read.and_then(|bytes| serde_json::from_slice::<RememberedImports>(&bytes).ok());
    if let Some(remembered) = read.filter(|remembered| remembered.key == key) {
        return remembered.imports;
    }
    let imports = Imports::list(root, &found.tests, environment).await;
    let remembered = RememberedImports { key, imports };
    // What was changed just before could be changed again without its stamp changing.
    if looked.rests {
        remember(file, &remembered);
    }
    remembered.imports
}

fn remember(file: &Path, what: &impl Serialize) {
    let bytes = serde_json::to_vec(what).unwrap_or_default();
    if let Err(error) = replace(file, &bytes) {
        tracing::warn!(%error, "which tests there are is not remembered");
    }
}

async fn find(root: &Path, files: Vec<PathBuf>, environment: &Environment) -> Result<Discovery, Error> {
    let mut found = Discovery::default();
    for folder in outermost(&files, "Cargo.toml") {
        if resolve("cargo", root, environment.get("PATH")).is_none() {
            found.notes.push(DiscoveryNote::MissingProgram { program: "cargo".to_owned(), tests: 1 });
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

/// Whether a file says what a package of Go is built from, and is not read as a manifest.
fn is_code(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "go" || it == "sum") || path.ends_with("vendor/modules.txt")
}

fn look(root: &Path, path: Option<&std::ffi::OsStr>) -> Result<Looked, Error> {
    let (mut hasher, mut code) = (blake3::Hasher::new(), Vec::new());
    let (at, mut rests) = (now(), true);
    hasher.update(&VERSION.to_le_bytes());
    let mut files = Vec::new();
    for found in listing::list(root, &[&Selection::everything()])?.files {
        hasher.update(&(bytes(&found.path).len() as u64).to_le_bytes()).update(bytes(&found.path));
        let name = found.path.file_name().unwrap_or_default();
        if MANIFESTS.iter().chain(&Discovery::MANIFESTS).any(|manifest| name == *manifest)
            && let Ok((entry, _)) = hash_file(&root.join(&found.path), 0)
        {
            hasher.update(&entry.hash);
        }
        if is_code(&found.path) {
            found.stamp.write(&mut code);
            rests &= found.stamp.rested(RACY, at);
        }
        files.push(found.path);
    }
    for program in PROGRAMS {
        let place = resolve(program, root, path).unwrap_or_default();
        if program == "go"
            && let Ok(metadata) = std::fs::metadata(&place)
        {
            Stamp::of(&metadata).write(&mut code);
        }
        hasher.update(&(bytes(&place).len() as u64).to_le_bytes()).update(bytes(&place));
    }
    let key = hasher.finalize().to_hex().to_string();
    Ok(Looked { files, key, code: blake3::hash(&code), rests })
}
