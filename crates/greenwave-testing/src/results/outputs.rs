//! The files that a test writes inside its project: stored with its result, and restored from it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use greenwave_dir::{Access, Dir, Metadata};
use greenwave_inputs::{ALWAYS_EXCLUDED, Selection, is_cache_directory};
use serde::{Deserialize, Serialize};

/// Maximum total size of the outputs that are stored with a result, in bytes. Of larger ones, only
/// the paths are stored.
const BYTES_MAX: u64 = 1024 * 1024;
/// Maximum number of outputs that are stored with a result.
const FILES_MAX: usize = 1000;
/// Directories whose files are caches of tools. They are made again when they are needed.
const CACHES: [&str; 5] = ["__pycache__", ".pytest_cache", ".hypothesis", "node_modules", "target"];

/// A file that a test wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path relative to the project.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub len: u64,
    /// Content; `None` if it is too large to be stored.
    #[serde(skip)]
    pub content: Option<Bytes>,
}

/// Reads the outputs that a test has written, or that exist at paths which its patterns name.
/// Blocks.
///
/// Links, special files and caches of tools are no outputs. A result with more than a thousand
/// outputs has none.
pub(crate) fn read<'p>(
    project: &Path,
    selection: &Selection,
    written: impl Iterator<Item = &'p PathBuf>,
) -> Vec<OutputFile> {
    let Ok(root) = Dir::open(project) else { return Vec::new() };
    let written = written.filter_map(|path| path.strip_prefix(project).ok());
    let all: BTreeSet<&Path> = written.chain(selection.output_roots()).collect();
    let is_wanted = |path: &&Path| selection.is_output(path) && is_safe(project, path);
    let wanted: Vec<&Path> = all.into_iter().filter(is_wanted).collect();
    let file = |path: &&Path| {
        let metadata = root.metadata(path).ok().filter(Metadata::is_file)?;
        let mode = metadata.permissions() & 0o777;
        Some(OutputFile { path: path.to_path_buf(), mode, len: metadata.len(), content: None })
    };
    let mut files: Vec<OutputFile> = wanted.iter().filter_map(file).collect();
    if files.len() > FILES_MAX {
        return Vec::new();
    }
    if files.iter().map(|file| file.len).sum::<u64>() <= BYTES_MAX {
        for file in &mut files {
            let content = root.read(&file.path, file.len).ok();
            file.content = content.filter(|content| content.len() as u64 == file.len).map(Bytes::from);
        }
    }
    files
}

/// Restores the outputs that do not exist. Returns a path that could not be restored. Blocks.
///
/// Files that exist are not touched, whatever they contain. All paths are resolved below a handle
/// of the project, so that no link that appears meanwhile leads a write elsewhere.
pub(crate) fn restore(project: &Path, selection: &Selection, files: &[OutputFile]) -> Option<PathBuf> {
    let Ok(root) = Dir::open(project) else { return files.first().map(|file| file.path.clone()) };
    let mut missing = files.iter().filter(|file| root.metadata(&file.path).is_err());
    let failed = missing.find(|file| {
        let is_restorable = selection.is_output(&file.path) && is_safe(project, &file.path);
        !is_restorable || file.content.as_ref().is_none_or(|content| write(&root, file, content).is_err())
    });
    failed.map(|file| file.path.clone())
}

/// Writes a file under another name, and renames it once it is complete: a file that exists counts
/// as restored.
fn write(root: &Dir, file: &OutputFile, content: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (parent, name) = root.create_parent(&file.path, 0o777)?;
    let mut partial = OsString::from(".");
    partial.push(&name);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    partial.push(format!(".greenwave-{}-{number}", std::process::id()));
    let written = parent.open_file(&partial, Access::CreateNew, file.mode & 0o777);
    let written = written.and_then(|mut opened| opened.write_all(content));
    let renamed = written.and_then(|()| parent.rename_new(&partial, &name));
    if renamed.is_err() {
        let _ = parent.remove_file(&partial);
    }
    match renamed {
        // Another process has restored the same file.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && parent.metadata(&name).is_ok() => {
            Ok(())
        }
        renamed => renamed,
    }
}

/// Returns whether a path is plain, and belongs to no cache.
fn is_safe(project: &Path, path: &Path) -> bool {
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let names = || path.components().filter_map(|part| part.as_os_str().to_str());
    let is_special = names().any(|name| CACHES.contains(&name) || ALWAYS_EXCLUDED.contains(&name));
    let mut above = path.ancestors().skip(1).map(|directory| project.join(directory));
    is_plain && !is_special && !above.any(|directory| is_cache_directory(&directory))
}

/// Outputs with their content, in the order of a record.
pub(crate) type Outputs = Arc<[OutputFile]>;

#[cfg(test)]
mod tests {
    use std::fs;

    use greenwave_inputs::InputSpec;

    use super::*;

    fn selection(outputs: &[&str]) -> Selection {
        let outputs = outputs.iter().map(|pattern| (*pattern).to_owned()).collect();
        Selection::of(&InputSpec { outputs, ..InputSpec::default() }).expect("the patterns are valid")
    }

    #[test]
    fn missing_outputs_are_restored_and_others_left_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let project = directory.path();
        let selection = selection(&["/report.html", "out/"]);
        fs::create_dir(project.join("out")).expect("the directory is writable");
        for path in ["report.html", "out/a", "other"] {
            fs::write(project.join(path), path).expect("the directory is writable");
        }
        let written = [project.join("out/a"), project.join("other")];
        let files = read(project, &selection, written.iter());
        let paths: Vec<&Path> = files.iter().map(|file| file.path.as_path()).collect();
        assert_eq!(paths, [Path::new("out/a"), Path::new("report.html")]);
        fs::remove_dir_all(project.join("out")).expect("the directory exists");
        fs::write(project.join("report.html"), "changed").expect("the directory is writable");
        assert_eq!(restore(project, &selection, &files), None);
        let text = |path: &str| fs::read_to_string(project.join(path)).expect("the file exists");
        assert_eq!((text("out/a"), text("report.html")), ("out/a".to_owned(), "changed".to_owned()));
    }

    #[test]
    fn a_file_that_cannot_be_completed_is_not_left() {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let root = Dir::open(directory.path()).expect("the directory exists");
        fs::create_dir(directory.path().join("busy")).expect("the directory is writable");
        let file = OutputFile { path: "busy".into(), mode: 0o600, len: 1, content: None };
        write(&root, &file, b"x").expect("something with the name exists");
        let long = OutputFile { path: "n".repeat(250).into(), ..file };
        write(&root, &long, b"x").expect_err("the temporary name is too long");
        let names = fs::read_dir(directory.path()).expect("the directory exists");
        assert_eq!(names.map(|entry| entry.expect("it exists").file_name()).collect::<Vec<_>>(), ["busy"]);
    }

    #[test]
    fn outputs_are_never_restored_outside_of_the_project() {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let (project, outside) = (directory.path().join("p"), directory.path().join("outside"));
        fs::create_dir_all(&project).expect("the directory is writable");
        fs::create_dir(&outside).expect("the directory is writable");
        std::os::unix::fs::symlink(&outside, project.join("out")).expect("the directory is writable");
        let selection = selection(&["**"]);
        for path in ["../x", "/x", "out/x", ".git/config"] {
            let content = Some(Bytes::from_static(b"x"));
            let file = OutputFile { path: path.into(), mode: 0o644, len: 1, content };
            assert_eq!(restore(&project, &selection, &[file]), Some(path.into()));
        }
        assert_eq!(fs::read_dir(&outside).expect("the directory exists").count(), 0);
    }
}
