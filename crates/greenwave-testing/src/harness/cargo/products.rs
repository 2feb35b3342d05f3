//! Classifies paths in the directories that cargo builds into: internal to cargo, or a dependency
//! of a test.
//!
//! Programs and libraries of the test's own package and of its dependencies are built from sources
//! that are dependencies already. Files that cargo uses internally are no dependencies. All other
//! files are, by content: programs and libraries of other packages, and files that build scripts,
//! other tests or the test itself created. Before a cached result that depends on files that cargo
//! builds is reused, cargo brings them up to date
//! ([`AccessKind::Build`](greenwave_inputs::AccessKind::Build)).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dep_info::dep_info;
use greenwave_inputs::AccessKind;

/// Cargo's directories, from the view of one test.
#[derive(Debug, Clone)]
pub(crate) struct Products {
    /// The directories that cargo builds into, without symbolic links.
    pub(crate) roots: Vec<PathBuf>,
    /// Files in these directories that are built from sources of the test.
    pub(crate) own: Arc<HashSet<PathBuf>>,
    /// Workspace that is built before its tests run, relative to the project; `None` if only the
    /// test builds.
    pub(crate) workspace: Option<PathBuf>,
    /// Whether the last build of the workspace succeeded.
    pub(crate) is_complete: bool,
    /// Whether the test's command runs cargo on these directories.
    pub(crate) runs_cargo: bool,
}

/// The role of a path in cargo's directories for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProductRole {
    /// Not a dependency beside the sources of the test.
    Internal,
    /// A dependency by content.
    Content,
    /// A dependency by content, which cargo may rebuild.
    Built,
}

/// The profile that `cargo test` builds.
const PROFILE: &str = "debug";
/// Directories that cargo uses internally, and such files in the outermost directory.
const INTERNAL: [&str; 2] = [".fingerprint", "incremental"];
const INTERNAL_FILES: [&str; 2] = ["CACHEDIR.TAG", RUSTC_INFO];
/// File that cargo writes to each directory that it builds into.
pub(crate) const RUSTC_INFO: &str = ".rustc_info.json";
/// Subdirectories of a profile that exist after any build.
const LAYOUT: [&str; 5] = ["build", "deps", "examples", ".fingerprint", "incremental"];
/// Subdirectories for processor types, which the dynamic linker searches and cargo never creates
/// (<https://man7.org/linux/man-pages/man8/ld.so.8.html>, and `dl_platform` in glibc before 2.37).
const HARDWARE: [&str; 7] = ["glibc-hwcaps", "tls", "x86_64", "aarch64", "haswell", "xeon_phi", "avx512_1"];

/// The accesses of a run, indexed for classification.
#[derive(Debug)]
pub(crate) struct Accesses<'s> {
    written: &'s HashSet<PathBuf>,
    accessed: HashSet<&'s Path>,
    /// For each directory, the innermost enclosing directory that another cargo process builds
    /// into.
    nested: HashMap<PathBuf, Option<PathBuf>>,
    /// The nested directories that the run wrote to.
    maintained: HashSet<PathBuf>,
}

impl<'s> Accesses<'s> {
    pub(crate) fn new(
        products: &Products,
        accesses: &'s [(PathBuf, AccessKind)],
        written: &'s HashSet<PathBuf>,
    ) -> Self {
        let accessed = accesses.iter().map(|(path, _)| path.as_path()).collect();
        let mut seen = Self { written, accessed, nested: HashMap::new(), maintained: HashSet::new() };
        for path in written {
            if let Some(root) = products.root(path)
                && let Some(nested) = seen.nested(root, path)
            {
                seen.maintained.insert(nested);
            }
        }
        seen
    }

    /// Returns the innermost directory that contains a path and that another cargo process builds
    /// into.
    fn nested(&mut self, root: &Path, path: &Path) -> Option<PathBuf> {
        let directory =
            path.parent().filter(|directory| directory.starts_with(root) && *directory != root)?;
        if let Some(found) = self.nested.get(directory) {
            return found.clone();
        }
        let is_target = directory.join(RUSTC_INFO).is_file();
        let found = if is_target { Some(directory.to_owned()) } else { self.nested(root, directory) };
        self.nested.insert(directory.to_owned(), found.clone());
        found
    }
}

impl Products {
    /// Creates the view of a directory that only the test's own command builds into.
    pub(crate) fn of_command(root: &Path) -> Self {
        Self {
            roots: vec![root.to_owned()],
            own: Arc::default(),
            workspace: None,
            is_complete: true,
            runs_cargo: true,
        }
    }

    /// Returns the directory of cargo that a path is in, or is.
    pub(crate) fn root(&self, path: &Path) -> Option<&Path> {
        self.roots.iter().map(PathBuf::as_path).find(|root| path.starts_with(root))
    }

    /// Classifies a path; `None` if it is outside of cargo's directories.
    pub(crate) fn part(&self, path: &Path, kind: AccessKind, seen: &mut Accesses<'_>) -> Option<ProductRole> {
        let root = self.root(path)?;
        if self.own.contains(path) {
            return Some(ProductRole::Internal);
        }
        match seen.nested(root, path).filter(|nested| seen.maintained.contains(nested)) {
            Some(_) if seen.written.contains(path) => Some(ProductRole::Internal),
            Some(nested) => Self::of_command(&nested).part_in(&nested, path, kind, seen),
            None => self.part_in(root, path, kind, seen),
        }
    }

    /// Classifies a path in the directory `root`, whose nested directories do not matter.
    fn part_in(
        &self,
        root: &Path,
        path: &Path,
        kind: AccessKind,
        seen: &Accesses<'_>,
    ) -> Option<ProductRole> {
        let below = path.strip_prefix(root).ok()?;
        let names: Vec<&OsStr> = below.iter().collect();
        let profile = names.iter().take(2).position(|name| *name == PROFILE);
        if is_internal(&names, profile) {
            return Some(ProductRole::Internal);
        }
        if self.runs_cargo && self.is_made_by_command(path, &names, profile, root, seen) {
            return Some(ProductRole::Internal);
        }
        let is_layout = match profile {
            None => names.len() <= 1,
            Some(at) => {
                names.len() == at + 1
                    || (names.len() == at + 2 && LAYOUT.iter().any(|it| names[at + 1] == *it))
            }
        };
        if kind == AccessKind::Content && is_layout && path.is_dir() {
            return Some(ProductRole::Internal);
        }
        if is_of_hardware(&names, profile) && !path.exists() {
            return Some(ProductRole::Internal);
        }
        let may_be_built = profile.is_some() && self.workspace.is_some() && !self.is_of_linker(path);
        Some(if may_be_built { ProductRole::Built } else { ProductRole::Content })
    }

    /// Returns whether a path is a missing library that the dynamic linker searched for.
    ///
    /// The linker searches all of its directories, and cargo creates no library with a version in
    /// its name.
    pub(crate) fn is_of_linker(&self, path: &Path) -> bool {
        let is_versioned = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so."));
        is_versioned && self.root(path).is_some() && !path.exists()
    }

    /// Returns whether the test's own command builds a file from sources that the test read.
    fn is_made_by_command(
        &self,
        path: &Path,
        names: &[&OsStr],
        profile: Option<usize>,
        root: &Path,
        seen: &Accesses<'_>,
    ) -> bool {
        // A custom profile, or one for releases, has the same layout.
        let profile = profile.unwrap_or(0);
        let kind = names.get(profile + 1);
        let is_output = names.get(profile + 3).is_some_and(|name| *name == "out");
        let is_internal = kind.is_some_and(|kind| *kind == "deps" || (*kind == "build" && !is_output));
        let is_product = names.len() == profile + 2 || kind.is_some_and(|kind| *kind == "examples");
        let is_made = || {
            let sources = dep_info(path, root);
            !sources.is_empty() && sources.iter().all(|source| seen.accessed.contains(source.as_path()))
        };
        is_internal || (is_product && (seen.written.contains(path) || is_made()))
    }
}

/// Returns whether cargo uses a file internally.
fn is_internal(names: &[&OsStr], profile: Option<usize>) -> bool {
    let Some(last) = names.last() else { return false };
    let is_lock =
        last.as_encoded_bytes().starts_with(b".cargo-") && last.as_encoded_bytes().ends_with(b"lock");
    let is_dependencies = Path::new(last).extension().is_some_and(|it| it == "d");
    match profile {
        None => (names.len() == 1 && INTERNAL_FILES.iter().any(|it| *last == *it)) || is_lock,
        Some(at) => {
            let kind = names.get(at + 1);
            is_lock
                || kind.is_some_and(|kind| INTERNAL.iter().any(|it| *kind == *it))
                || (is_dependencies && names.len() <= at + 3)
        }
    }
}

/// Returns whether a path is in a directory for a processor type.
fn is_of_hardware(names: &[&OsStr], profile: Option<usize>) -> bool {
    let below = names.iter().skip(profile.map_or(names.len(), |at| at + 1)).take(2);
    below.into_iter().any(|name| HARDWARE.iter().any(|it| *name == *it))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Checks the role of a path for a test whose program is `deps/a`, and which wrote to
    /// `written`.
    fn check(made: &[&str], written: &[&str], runs_cargo: bool, path: &str, expected: Option<ProductRole>) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join("target");
        for file in made {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let products = Products {
            roots: vec![root.clone()],
            own: Arc::new([root.join("debug/deps/a")].into()),
            workspace: Some(PathBuf::new()),
            is_complete: true,
            runs_cargo,
        };
        let written: HashSet<PathBuf> = written.iter().map(|path| root.join(path)).collect();
        let path = if path.starts_with('/') { PathBuf::from(path) } else { root.join(path) };
        let accesses = [(path.clone(), AccessKind::Content)];
        let mut seen = Accesses::new(&products, &accesses, &written);
        assert_eq!(products.part(&path, AccessKind::Content, &mut seen), expected, "{}", path.display());
    }

    #[test]
    fn files_of_other_packages_differ_from_internal_files() {
        let built =
            ["debug/b", "debug/deps/a", "debug/deps/libb.so", "debug/build/b-1/out/x", "debug/libx.so.1"];
        for path in built.iter().filter(|path| !path.ends_with("/a")) {
            check(&built, &[], false, path, Some(ProductRole::Built));
        }
        // The next build may create a missing file, unless cargo never creates files of this kind.
        check(&built, &[], false, "debug/c", Some(ProductRole::Built));
        check(&built, &[], false, "x86_64-unknown-linux-gnu/debug/c", Some(ProductRole::Built));
        check(&built, &[], false, "debug/deps/libc.so.6", Some(ProductRole::Content));
        check(&built, &[], false, "debug/deps/tls/x86_64", Some(ProductRole::Internal));
        for path in [
            "debug/deps/a",
            "debug/deps/a.d",
            "debug/.fingerprint/b-1/x",
            "debug/incremental/x",
            "debug/.cargo-lock",
            "CACHEDIR.TAG",
            "debug",
            "debug/deps",
            "",
        ] {
            check(&built, &[], false, path, Some(ProductRole::Internal));
        }
        // `cargo test` builds neither other profiles nor files that tests create.
        check(&["release/b"], &[], false, "release/b", Some(ProductRole::Content));
        check(&["tmp/x"], &["tmp/x"], false, "tmp/x", Some(ProductRole::Content));
        check(&[], &[], false, "/usr/lib/x", None);
    }

    #[test]
    fn directories_that_a_test_builds_into_are_those_of_a_cargo_command() {
        let made = ["tests/x/.rustc_info.json", "tests/x/debug/y"];
        let lock = "tests/x/debug/.cargo-lock";
        check(&made, &[lock], false, "tests/x/debug/deps/y", Some(ProductRole::Internal));
        check(&made, &[lock, "tests/x/debug/y"], false, "tests/x/debug/y", Some(ProductRole::Internal));
        // Somebody else may have made these.
        check(&made, &[lock], false, "tests/x/debug/y", Some(ProductRole::Content));
        check(&made, &[lock], false, "tests/x/expected", Some(ProductRole::Content));
        check(&made, &["tests/z"], false, "tests/x/debug/y", Some(ProductRole::Content));
        check(&made, &["tests/x/debug/.cargo-lock"], false, "tests/z", Some(ProductRole::Content));
    }

    #[test]
    fn a_cargo_command_builds_what_it_reads() {
        let made = ["debug/deps/libx.rlib", "debug/build/b-1/output", "debug/build/b-1/out/x", "debug/b"];
        check(&made, &[], true, "debug/deps/libx.rlib", Some(ProductRole::Internal));
        check(&made, &[], true, "debug/build/b-1/output", Some(ProductRole::Internal));
        check(&made, &[], true, "debug/build/b-1/out/x", Some(ProductRole::Built));
        check(&made, &[], true, "debug/b", Some(ProductRole::Built));
        check(&made, &["debug/b"], true, "debug/b", Some(ProductRole::Internal));
    }
}
