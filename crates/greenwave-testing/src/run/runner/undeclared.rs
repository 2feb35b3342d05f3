//! Finds accesses that a test does not declare.

use std::env;
use std::path::{Path, PathBuf};

use greenwave_inputs::{ALWAYS_EXCLUDED, AccessKind, InputSnapshot, Selection};

use super::accesses::Accesses;
use super::prepare::Prepared;
use crate::harness::cargo::products::Products;
use crate::results::more_reads::MoreReads;
use crate::run::isolation;
use crate::{Environment, Error, Test};

/// System paths that tests may read without declaring them: libraries, programs and the linker's
/// cache.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.preload"];

/// Variables that name the locations of toolchains.
const TOOLCHAINS: [&str; 4] = ["RUSTUP_HOME", "PYENV_ROOT", "GOROOT", "JAVA_HOME"];

/// Returns the paths that a test accessed outside of the system, its toolchains and its declared
/// inputs. Programs that are missing in directories of `PATH` outside of the
/// project do not count.
///
/// # Errors
/// [`Error::Inputs`] if an input pattern is invalid.
pub(super) fn reads_more(
    project: &Path,
    environment: &Environment,
    test: &Test,
    prepared: &Prepared<'_>,
    accesses: &Accesses,
    products: Option<&Products>,
) -> Result<MoreReads, Error> {
    let selection = test.selection()?;
    let homes = isolation::tool_homes(environment).map(|(_, path)| path);
    let toolchains = TOOLCHAINS.iter().filter_map(|name| environment.get(name)).map(PathBuf::from);
    let system: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).chain(homes).chain(toolchains).collect();
    let programs: Vec<PathBuf> =
        environment.get("PATH").map(|all| env::split_paths(all).collect()).unwrap_or_default();
    // A shell searches each directory for each program that it starts.
    let is_search = |path: &Path| {
        path.parent().is_some_and(|directory| programs.iter().any(|it| it == directory))
            && !path.starts_with(project)
            && path.symlink_metadata().is_err()
    };
    let counts = |(path, kind): &&(PathBuf, AccessKind)| {
        let relative = path.strip_prefix(project).unwrap_or(path);
        let is_declared = || {
            matches!(kind, AccessKind::Content | AccessKind::Repository)
                && (prepared.snapshot.inputs.get(relative).is_some() || path.is_dir())
        };
        let is_exempt = products.is_some_and(|products| products.is_of_linker(path))
            || system.iter().any(|directory| path.starts_with(directory))
            || *path == prepared.program
            || is_search(path)
            || selection.is_output(relative);
        // Last, since it queries the file system.
        let is_read = !matches!(kind, AccessKind::Build | AccessKind::Tree) && !kind.is_maintained();
        is_read && !is_exempt && !is_declared()
    };
    let mut reads = MoreReads::default();
    for (path, kind) in accesses.iter().filter(counts) {
        reads.add(project, path.strip_prefix(project).unwrap_or(path), *kind);
    }
    Ok(reads)
}

/// Returns the project files that the test read but did not declare as inputs. `built` holds the
/// directories that its program was built into.
pub(super) fn undeclared(
    project: &Path,
    selection: &Selection,
    snapshot: &InputSnapshot,
    accesses: &Accesses,
    built: &[PathBuf],
) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let is_built = |path: &Path| built.iter().any(|root| path.starts_with(root));
    let read = accesses.iter().filter(|(path, kind)| *kind == AccessKind::Content && !is_built(path));
    for (path, _) in read {
        let absolute = project.join(path);
        let Ok(path) = absolute.strip_prefix(project) else { continue };
        let is_excluded = ALWAYS_EXCLUDED.iter().any(|name| path.starts_with(name))
            || snapshot.inputs.get(path).is_some()
            || selection.is_output(path);
        if !is_excluded && absolute.is_file() {
            paths.push(path.to_owned());
        }
    }
    paths
}
