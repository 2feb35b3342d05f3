//! Classifies what a test reads in the directories that cargo builds into: internal to cargo, or a dependency of the test.
//!
//! The programs and libraries of the test's own package and of what that depends on are made from sources that are dependencies already. Files
//! that cargo keeps for itself are none of the test's. Everything else counts by its content: programs and libraries of other packages, what build
//! scripts, other tests or the test itself left there. What cargo may make anew is brought up to date before a result that depends on it is believed
//! ([`AccessKind::Build`](greenwave_inputs::AccessKind::Build)).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dep_info::dep_info;
use greenwave_inputs::AccessKind;

/// The layout of cargo's directories, as one test sees it.
#[derive(Debug, Clone)]
pub(crate) struct Products {
    /// The directories that cargo builds into, without links.
    pub(crate) roots: Vec<PathBuf>,
    /// Files in there that are made from sources which the test depends on.
    pub(crate) own: Arc<HashSet<PathBuf>>,
    /// The workspace that is built before its tests are run, relative to the project; `None` if only the test itself builds.
    pub(crate) workspace: Option<PathBuf>,
    /// Whether the last build of it had no mistakes.
    pub(crate) is_complete: bool,
    /// Whether the test's own command runs cargo on these directories.
    pub(crate) runs_cargo: bool,
}

/// What a path in cargo's directories is to a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nothing that the test's result depends on beside its sources.
    Internal,
    /// A dependency by content.
    Content,
    /// A dependency by content, which cargo may make anew.
    Built,
}

/// The profile of tests. Others are not built by `cargo test`.
const PROFILE: &str = "debug";
/// Directories that cargo makes for itself, and files in the outermost one.
const INTERNAL: [&str; 2] = [".fingerprint", "incremental"];
const INTERNAL_FILES: [&str; 2] = ["CACHEDIR.TAG", RUSTC_INFO];
/// Written by cargo into whatever directory it builds into.
pub(crate) const RUSTC_INFO: &str = ".rustc_info.json";
/// Directories in a profile's that are there after any build.
const LAYOUT: [&str; 5] = ["build", "deps", "examples", ".fingerprint", "incremental"];
/// Directories for kinds of processors, which the dynamic linker looks for in each of its directories and cargo never makes
/// (<https://man7.org/linux/man-pages/man8/ld.so.8.html>, and `dl_platform` in glibc before 2.37).
const HARDWARE: [&str; 7] = ["glibc-hwcaps", "tls", "x86_64", "aarch64", "haswell", "xeon_phi", "avx512_1"];

/// What a run did, as far as it is of use here.
#[derive(Debug)]
pub(crate) struct Seen<'s> {
    written: &'s HashSet<PathBuf>,
    looked: HashSet<&'s Path>,
    /// For each directory: the innermost directory that another cargo builds into and that it is in.
    nested: HashMap<PathBuf, Option<PathBuf>>,
    /// Those of them that were written to.
    kept_up: HashSet<PathBuf>,
}

impl<'s> Seen<'s> {
    pub(crate) fn new(
        products: &Products,
        looks: &'s [(PathBuf, AccessKind)],
        written: &'s HashSet<PathBuf>,
    ) -> Self {
        let looked = looks.iter().map(|(path, _)| path.as_path()).collect();
        let mut seen = Self { written, looked, nested: HashMap::new(), kept_up: HashSet::new() };
        for path in written {
            if let Some(root) = products.root(path)
                && let Some(nested) = seen.nested(root, path)
            {
                seen.kept_up.insert(nested);
            }
        }
        seen
    }

    /// The innermost directory below a root that a path is in and that cargo was run on by itself.
    fn nested(&mut self, root: &Path, path: &Path) -> Option<PathBuf> {
        let folder = path.parent().filter(|folder| folder.starts_with(root) && *folder != root)?;
        if let Some(known) = self.nested.get(folder) {
            return known.clone();
        }
        let found = match folder.join(RUSTC_INFO).is_file() {
            true => Some(folder.to_owned()),
            false => self.nested(root, folder),
        };
        self.nested.insert(folder.to_owned(), found.clone());
        found
    }
}

impl Products {
    /// A directory that only the test's own cargo builds into.
    pub(crate) fn of_command(root: &Path) -> Self {
        Self {
            roots: vec![root.to_owned()],
            own: Arc::default(),
            workspace: None,
            is_complete: true,
            runs_cargo: true,
        }
    }

    /// The directory of cargo's that a path is in, or is.
    pub(crate) fn root(&self, path: &Path) -> Option<&Path> {
        self.roots.iter().map(PathBuf::as_path).find(|root| path.starts_with(root))
    }

    /// What a path is to the test; `None` if it is not in cargo's directories.
    pub(crate) fn part(&self, path: &Path, look: AccessKind, seen: &mut Seen<'_>) -> Option<Part> {
        let root = self.root(path)?;
        let below = path.strip_prefix(root).ok()?;
        let names: Vec<&OsStr> = below.iter().collect();
        let profile = names.iter().take(2).position(|name| *name == PROFILE);
        let is_kept_up =
            |seen: &mut Seen<'_>| seen.nested(root, path).is_some_and(|it| seen.kept_up.contains(&it));
        if self.own.contains(path) || is_internal(&names, profile) || is_kept_up(seen) {
            return Some(Part::Internal);
        }
        if self.runs_cargo && self.is_made_by_command(path, &names, profile, root, seen) {
            return Some(Part::Internal);
        }
        let is_layout = match profile {
            None => names.len() <= 1,
            Some(at) => {
                names.len() == at + 1
                    || (names.len() == at + 2 && LAYOUT.iter().any(|it| names[at + 1] == *it))
            }
        };
        if look == AccessKind::Content && is_layout && path.is_dir() {
            return Some(Part::Internal);
        }
        if is_of_hardware(&names, profile) && !path.exists() {
            return Some(Part::Internal);
        }
        let may_be_built = profile.is_some() && self.workspace.is_some() && !self.is_of_linker(path);
        Some(if may_be_built { Part::Built } else { Part::Content })
    }

    /// Whether a library is not there for which the dynamic linker looks in all of its directories. Cargo makes none whose name has a version.
    pub(crate) fn is_of_linker(&self, path: &Path) -> bool {
        let is_versioned = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so."));
        is_versioned && self.root(path).is_some() && !path.exists()
    }

    /// Whether the test's own cargo makes a file from what the test was seen to read.
    fn is_made_by_command(
        &self,
        path: &Path,
        names: &[&OsStr],
        profile: Option<usize>,
        root: &Path,
        seen: &Seen<'_>,
    ) -> bool {
        // A custom profile, or one for releases, has the same layout.
        let profile = profile.unwrap_or(0);
        let kind = names.get(profile + 1);
        let is_output = names.get(profile + 3).is_some_and(|name| *name == "out");
        let is_internal = kind.is_some_and(|kind| *kind == "deps" || (*kind == "build" && !is_output));
        let is_product = names.len() == profile + 2 || kind.is_some_and(|kind| *kind == "examples");
        let is_made = || {
            let sources = dep_info(path, root);
            !sources.is_empty() && sources.iter().all(|source| seen.looked.contains(source.as_path()))
        };
        is_internal || (is_product && (seen.written.contains(path) || is_made()))
    }
}

/// Whether cargo keeps a file for itself.
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

/// Whether a path is in a directory for a kind of processor.
fn is_of_hardware(names: &[&OsStr], profile: Option<usize>) -> bool {
    let below = names.iter().skip(profile.map_or(names.len(), |at| at + 1)).take(2);
    below.into_iter().any(|name| HARDWARE.iter().any(|it| *name == *it))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What a path is to a test of a package whose program is `deps/a`, where the test has written to `written`.
    fn check(made: &[&str], written: &[&str], runs_cargo: bool, path: &str, expected: Option<Part>) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("target");
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
        let looks = [(path.clone(), AccessKind::Content)];
        let mut seen = Seen::new(&products, &looks, &written);
        assert_eq!(products.part(&path, AccessKind::Content, &mut seen), expected, "{}", path.display());
    }

    #[test]
    fn what_other_packages_build_is_told_from_what_is_cargos_business() {
        let built =
            ["debug/b", "debug/deps/a", "debug/deps/libb.so", "debug/build/b-1/out/x", "debug/libx.so.1"];
        for path in built.iter().filter(|path| !path.ends_with("/a")) {
            check(&built, &[], false, path, Some(Part::Built));
        }
        // What is not there yet may come with the next build, but for what cargo never makes.
        check(&built, &[], false, "debug/c", Some(Part::Built));
        check(&built, &[], false, "x86_64-unknown-linux-gnu/debug/c", Some(Part::Built));
        check(&built, &[], false, "debug/deps/libc.so.6", Some(Part::Content));
        check(&built, &[], false, "debug/deps/tls/x86_64", Some(Part::Internal));
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
            check(&built, &[], false, path, Some(Part::Internal));
        }
        // Other profiles are not built by `cargo test`, and what tests leave is built by nobody.
        check(&["release/b"], &[], false, "release/b", Some(Part::Content));
        check(&["tmp/x"], &["tmp/x"], false, "tmp/x", Some(Part::Content));
        check(&[], &[], false, "/usr/lib/x", None);
    }

    #[test]
    fn directories_that_a_test_has_cargo_build_into_are_its_own() {
        let made = ["tests/x/.rustc_info.json", "tests/x/debug/y"];
        check(&made, &["tests/x/debug/.cargo-lock"], false, "tests/x/debug/y", Some(Part::Internal));
        check(&made, &["tests/z"], false, "tests/x/debug/y", Some(Part::Content));
        check(&made, &["tests/x/debug/.cargo-lock"], false, "tests/z", Some(Part::Content));
    }

    #[test]
    fn a_command_that_is_cargo_makes_what_it_reads() {
        let made = ["debug/deps/libx.rlib", "debug/build/b-1/output", "debug/build/b-1/out/x", "debug/b"];
        check(&made, &[], true, "debug/deps/libx.rlib", Some(Part::Internal));
        check(&made, &[], true, "debug/build/b-1/output", Some(Part::Internal));
        check(&made, &[], true, "debug/build/b-1/out/x", Some(Part::Built));
        check(&made, &[], true, "debug/b", Some(Part::Built));
        check(&made, &["debug/b"], true, "debug/b", Some(Part::Internal));
    }
}
