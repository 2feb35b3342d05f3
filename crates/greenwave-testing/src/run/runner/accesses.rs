//! Selects the traced accesses that the result of a test depends on.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::{AccessKind, MaintainedFiles, is_cache_directory};

use crate::Environment;
use crate::harness::cargo::products::{self, ProductRole, Products, RUSTC_INFO};
use crate::results::state::StateFile;
use crate::run::go_homes::go_caches;
use crate::run::isolation::cargo_home;
use crate::run::observation::Seen;

/// Accesses by path, absolute or relative to the project.
pub(crate) type Accesses = Vec<(PathBuf, AccessKind)>;

/// The accesses that the result of a test depends on.
pub(super) struct OwnAccesses {
    pub(super) accesses: Accesses,
    /// A build product that the test read and that may be stale because the build was incomplete.
    pub(super) unbuilt: Option<PathBuf>,
    /// A file in a cache that the test maintains. The test may not have read the sources of the
    /// cache again.
    pub(super) from_cache: Option<PathBuf>,
}

/// Everything that the process of a built program observed.
#[derive(Debug, Clone)]
pub(super) struct ProcessAccesses {
    pub(super) accesses: Arc<Accesses>,
    /// A file in a cache that the test maintains.
    pub(super) from_cache: Option<PathBuf>,
}

/// Directories in which accesses are no dependencies of a test.
pub(super) struct AccessFilter<'a> {
    project: &'a Path,
    /// Files that tests left in caches which they maintain.
    maintained: &'a MaintainedFiles,
    /// Directory of results.
    results: Option<&'a Path>,
    /// The private directory of the test.
    own_directory: &'a Path,
    cargo_home: Option<PathBuf>,
    go_caches: Vec<PathBuf>,
}

impl<'a> AccessFilter<'a> {
    pub(super) fn new(
        environment: &Environment,
        results: Option<&'a Path>,
        own_directory: &'a Path,
        (project, maintained): (&'a Path, &'a MaintainedFiles),
    ) -> Self {
        let (cargo_home, go_caches) = (cargo_home(environment), go_caches(environment));
        Self { project, maintained, results, own_directory, cargo_home, go_caches }
    }

    /// Returns the accesses that the result of a test depends on. Leaves out the directory of the
    /// run, stored results, downloads, and build products whose sources are dependencies anyway.
    pub(super) fn apply(&self, seen: &Seen, products: Option<&Products>) -> OwnAccesses {
        let counts =
            |(path, kind): &&(PathBuf, AccessKind)| self.counts(path) && !is_swept(seen, path, *kind);
        let accesses = seen.accesses.iter().filter(counts).cloned().collect();
        let (accesses, unbuilt) = match products {
            Some(products) => without_products(products, accesses, &seen.written),
            None => (accesses, None),
        };
        let (accesses, of_tests) = in_caches(accesses, &self.files_of_tests(seen), self.caches(), products);
        let from_cache = of_tests.into_iter().find(|path| seen.existing.contains(path) && !path.is_dir());
        OwnAccesses { accesses, unbuilt, from_cache }
    }

    /// Returns everything that the process of a built program observed, with the program itself and
    /// the libraries that were built for it. Returns `None` if the process used files that cargo
    /// compares by their timestamps, which no state covers.
    pub(super) fn of_process(&self, seen: &Seen, products: &Products) -> Option<ProcessAccesses> {
        let counts =
            |(path, kind): &&(PathBuf, AccessKind)| self.counts(path) && !is_swept(seen, path, *kind);
        let accesses: Accesses = seen.accesses.iter().filter(counts).cloned().collect();
        let mut index = products::Accesses::new(products, &accesses, &seen.written);
        let is_of_cargo = |(path, kind): &(PathBuf, AccessKind)| {
            let is_internal = products.part(path, *kind, &mut index) == Some(ProductRole::Internal);
            let is_examined = *kind == AccessKind::Content && path.is_dir();
            is_internal && !products.own.contains(path) && !is_examined && path.exists()
        };
        if accesses.iter().any(is_of_cargo) {
            return None;
        }
        let (accesses, of_tests) =
            in_caches(accesses, &self.files_of_tests(seen), self.caches(), Some(products));
        let accesses = with_loaded(accesses, seen, products);
        let from_cache = of_tests.into_iter().find(|path| seen.existing.contains(path) && !path.is_dir());
        Some(ProcessAccesses { accesses: Arc::new(accesses), from_cache })
    }

    fn caches(&self) -> CacheDirectories {
        CacheDirectories::below(self.project)
    }

    fn files_of_tests<'f>(&'f self, seen: &'f Seen) -> FilesOfTests<'f> {
        FilesOfTests::new(&seen.written, self.maintained)
    }

    fn counts(&self, path: &Path) -> bool {
        // Lock files pin downloads by hash, but not cargo's configuration.
        let is_download = self
            .cargo_home
            .as_ref()
            .is_some_and(|home| path.starts_with(home) && !is_cargo_setting(path, home))
            || self.go_caches.iter().any(|cache| path.starts_with(cache));
        // Results that runs inside the test look up depend only on accesses that are traced as
        // well.
        let is_result = self.results.is_some_and(|results| path.starts_with(results));
        !(path.starts_with(self.own_directory)
            || is_download
            || is_result
            || is_jvm_statistics(path)
            || StateFile::is_path(path))
    }
}

/// Changes the kind of accesses to programs that were built for the test and only executed, unless
/// a process looked for a file of debug information.
fn with_loaded(mut accesses: Accesses, seen: &Seen, products: &Products) -> Accesses {
    if accesses.iter().any(|(path, _)| is_debug_information(path)) {
        return accesses;
    }
    for (path, kind) in &mut accesses {
        if *kind == AccessKind::Content && products.own.contains(path) && seen.only_executed.contains(path) {
            *kind = AccessKind::Loaded;
        }
    }
    accesses
}

/// Returns whether a path is one at which debuggers look for debug information, by the name or the
/// build id of a program.
fn is_debug_information(path: &Path) -> bool {
    path.starts_with("/usr/lib/debug")
        || path.iter().any(|name| name == ".build-id" || name == ".debug")
        || path.extension().is_some_and(|it| it == "debug" || it == "dwp" || it == "dwo")
}

/// Returns whether an access was to a directory that the test itself removed unread and created
/// again, as programs that measure coverage do. Only the existence of such a directory matters.
fn is_swept(seen: &Seen, path: &Path, kind: AccessKind) -> bool {
    let is_in = |directory: &PathBuf| path.starts_with(directory) && path != directory;
    let existed = || seen.existing.contains(path);
    seen.swept.iter().any(is_in) && existed() || (kind == AccessKind::Names && seen.swept.contains(path))
}

/// Returns whether a path is in the directory where each Java VM publishes statistics about itself,
/// and removes those of VMs that have ended. Its location does not depend on `TMPDIR`
/// (<https://docs.oracle.com/en/java/javase/17/docs/specs/man/jstat.html>).
fn is_jvm_statistics(path: &Path) -> bool {
    let inside = path.strip_prefix("/tmp").ok().and_then(|inside| inside.iter().next());
    inside.is_some_and(|name| name.as_encoded_bytes().starts_with(b"hsperfdata_"))
}

fn is_cargo_setting(path: &Path, home: &Path) -> bool {
    path.strip_prefix(home).is_ok_and(|path| path == Path::new("config.toml") || path == Path::new("config"))
}

/// Removes accesses to cargo's internal files. If build products remain, adds the workspace that
/// must be built before they are compared. Also returns a product that may be stale because the
/// build was incomplete.
pub(super) fn without_products(
    products: &Products,
    accesses: Accesses,
    written: &HashSet<PathBuf>,
) -> (Accesses, Option<PathBuf>) {
    let mut seen = products::Accesses::new(products, &accesses, written);
    let parts: Vec<Option<ProductRole>> =
        accesses.iter().map(|(path, kind)| products.part(path, *kind, &mut seen)).collect();
    let built =
        parts.iter().position(|part| *part == Some(ProductRole::Built)).map(|at| accesses[at].0.clone());
    let mut accesses: Accesses = accesses
        .into_iter()
        .zip(parts)
        .filter(|(_, part)| *part != Some(ProductRole::Internal))
        .map(|(access, _)| access)
        .collect();
    if let (Some(workspace), Some(_)) = (&products.workspace, &built) {
        accesses.push((workspace.clone(), AccessKind::Build));
    }
    (accesses, built.filter(|_| !products.is_complete))
}

/// The files that tests of the project have written.
struct FilesOfTests<'f> {
    /// Files that the test has written in this run.
    now: &'f HashSet<PathBuf>,
    /// Files that tests left in caches.
    left: &'f MaintainedFiles,
    /// All directories that contain one of the files in `now`.
    directories: HashSet<PathBuf>,
}

impl<'f> FilesOfTests<'f> {
    fn new(now: &'f HashSet<PathBuf>, left: &'f MaintainedFiles) -> Self {
        let mut directories = HashSet::new();
        for path in now {
            for directory in path.ancestors().skip(1) {
                if !directories.insert(directory.to_owned()) {
                    break;
                }
            }
        }
        Self { now, left, directories }
    }

    /// Returns whether a test has written the file, or a file in the directory.
    fn contain(&self, path: &Path) -> bool {
        self.now.contains(path) || self.directories.contains(path) || self.left.contains(path)
    }
}

/// Changes the kind of accesses to files that tests have written in cache directories that the test
/// writes: as long as no other program has changed such a file, its content is derived from the
/// test's inputs. Anything else in a cache may have any content. Removes cargo's private files, and
/// returns the paths that do not count by content.
fn in_caches(
    mut accesses: Accesses,
    files: &FilesOfTests<'_>,
    mut caches: CacheDirectories,
    products: Option<&Products>,
) -> (Accesses, Vec<PathBuf>) {
    let mut of_tests = Vec::new();
    let maintained: HashSet<PathBuf> =
        files.now.iter().filter_map(|path| caches.containing(path).map(Path::to_owned)).collect();
    let is_built = |cache: &Path| products.is_some_and(|products| products.root(cache).is_some());
    for cache in maintained.iter().filter(|cache| is_of_cargo(cache) && !is_built(cache)) {
        let in_cache =
            |(path, kind): &&(PathBuf, AccessKind)| *kind == AccessKind::Content && path.starts_with(cache);
        of_tests.extend(accesses.iter().filter(in_cache).map(|(path, _)| path.clone()));
        (accesses, _) = without_products(&Products::of_command(cache), accesses, files.now);
    }
    let is_derived = |cache: &Path| maintained.contains(cache) && !is_built(cache) && !is_of_cargo(cache);
    for (path, kind) in &mut accesses {
        if caches.containing(path).is_some_and(is_derived) && files.contain(path) {
            if *kind == AccessKind::Content {
                of_tests.push(path.clone());
            }
            *kind = of_maintained(*kind);
        }
    }
    // Every cache directory has been identified by now, so accesses to the directories themselves
    // can be changed too.
    for (path, kind) in &mut accesses {
        if caches.around(path).is_some_and(is_derived) && files.contain(path) {
            *kind = of_maintained(*kind);
        }
    }
    // The trace does not show whether the test has read the names in a directory after it created
    // the directory. The next run would find other names there.
    let created = accesses
        .iter()
        .filter(|(path, kind)| *kind == AccessKind::Maintained && files.now.contains(path) && path.is_dir());
    let created: Accesses = created.map(|(path, _)| (path.clone(), AccessKind::MaintainedNames)).collect();
    accesses.extend(created);
    (accesses, of_tests)
}

/// Returns whether cargo builds into a cache directory.
fn is_of_cargo(cache: &Path) -> bool {
    cache.join(RUSTC_INFO).is_file()
}

/// Returns the kind of access to a path that tests have written in a cache.
fn of_maintained(kind: AccessKind) -> AccessKind {
    match kind {
        AccessKind::Content => AccessKind::Maintained,
        AccessKind::Names => AccessKind::MaintainedNames,
        other => other,
    }
}

/// Returns the files and directories that a test has written in caches other than cargo's, each
/// after the directory of its cache.
pub(super) fn written_in_caches<'w>(
    project: &Path,
    written: &'w HashSet<PathBuf>,
) -> Vec<(PathBuf, &'w Path)> {
    let mut caches = CacheDirectories::below(project);
    let with_cache = |path: &'_ PathBuf| caches.containing(path).map(Path::to_owned);
    let found: Vec<Option<PathBuf>> = written.iter().map(with_cache).collect();
    let mut of_cargo = HashMap::new();
    let mut is_cargo = |cache: &PathBuf| *of_cargo.entry(cache.clone()).or_insert_with(|| is_of_cargo(cache));
    let with_path = found.into_iter().zip(written).filter_map(|(cache, path)| Some((cache?, path.as_path())));
    with_path.filter(|(cache, _)| !is_cargo(cache)).collect()
}

/// Directories that are tagged as caches. Each directory is checked once.
struct CacheDirectories {
    /// For each checked directory, the outermost cache that contains it or is it.
    outermost: HashMap<PathBuf, Option<PathBuf>>,
}

impl CacheDirectories {
    /// Creates the set for a project: its own directory and those above it are no caches, since a
    /// project inside a cache, such as a checkout in cargo's `target`, has ordinary files.
    fn below(project: &Path) -> Self {
        Self { outermost: project.ancestors().map(|directory| (directory.to_owned(), None)).collect() }
    }

    /// Returns the cache that a path is in.
    fn containing(&mut self, path: &Path) -> Option<&Path> {
        let directory = path.parent()?;
        if !self.outermost.contains_key(directory) {
            let above = self.containing(directory).map(Path::to_owned);
            let cache = above.or_else(|| is_cache_directory(directory).then(|| directory.to_owned()));
            self.outermost.insert(directory.to_owned(), cache);
        }
        self.outermost.get(directory)?.as_deref()
    }

    /// Returns the cache that a directory is or is in, if a path in the directory was checked
    /// before.
    fn around(&self, directory: &Path) -> Option<&Path> {
        self.outermost.get(directory)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_information_is_recognized_by_its_path() {
        for path in ["/usr/lib/debug/a", "/x/.build-id/ab/cd", "/p/target/debug/deps/a-1.dwp", "/b/.debug/b"]
        {
            assert!(is_debug_information(Path::new(path)), "{path}");
        }
        for path in ["/p/target/debug/deps/a-1", "/p/debug.rs", "/p/src/debug/mod.rs"] {
            assert!(!is_debug_information(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn statistics_of_java_vms_are_no_dependencies() {
        for path in ["/tmp/hsperfdata_root", "/tmp/hsperfdata_me/123"] {
            assert!(is_jvm_statistics(Path::new(path)), "{path}");
        }
        for path in ["/tmp", "/tmp/x/hsperfdata_root", "/var/tmp/hsperfdata_root", "hsperfdata_root"] {
            assert!(!is_jvm_statistics(Path::new(path)), "{path}");
        }
    }
}
