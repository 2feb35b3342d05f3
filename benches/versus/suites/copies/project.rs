//! The project that is copied.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Number of files, and size of all, unless variables say otherwise. The suite makes the project a
/// dozen times in each round, and ends in minutes with this size.
const FILES: usize = 2_000;
const MEGABYTES: usize = 100;
/// Number of files in a directory.
const DIRECTORY_FILES: usize = 100;

/// A git project in a new directory.
pub(crate) struct Project {
    directory: TempDir,
}

impl Project {
    /// Writes the project and commits it.
    pub(crate) fn create() -> Self {
        let directory = tempfile::Builder::new().prefix("greenwave-bench-").tempdir();
        let project = Self { directory: directory.expect("a temporary directory can be created") };
        fs::create_dir(project.copies()).expect("a directory can be created");
        let (files, megabytes) = size();
        write_files(&project.root(), files, megabytes * 1_000_000 / files);
        project.git(&["init", "-q", "-b", "main"]);
        project.git(&["config", "user.name", "Bench"]);
        project.git(&["config", "user.email", "bench@example.com"]);
        project.git(&["add", "."]);
        project.git(&["commit", "-q", "-m", "Start"]);
        project
    }

    /// Returns the directory of the project.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// Returns the directory of the copies.
    pub(crate) fn copies(&self) -> PathBuf {
        self.directory.path().join("copies")
    }

    /// Returns a directory for everything else.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn git(&self, args: &[&str]) {
        let mut command = Command::new("git");
        let status = command.args(args).current_dir(self.root()).stdin(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "git {args:?}");
    }
}

/// Returns the number of files of the project, and the size of all in units of 10⁶ bytes.
pub(crate) fn size() -> (usize, usize) {
    (number("COPIES_FILES", FILES), number("COPIES_MB", MEGABYTES))
}

/// Returns the number in a variable, which is at least 1.
///
/// # Panics
/// If the variable has anything else.
pub(crate) fn number(variable: &str, default: usize) -> usize {
    let Ok(text) = std::env::var(variable) else { return default };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.unwrap_or_else(|| panic!("invalid value {text:?} for {variable}: expected a number from 1"))
}

/// Writes files that share no content. Every other one compresses like source code.
fn write_files(root: &Path, files: usize, bytes: usize) {
    // The generator of Knuth's MMIX, of which the upper bits are used.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    };
    const WORDS: [&str; 8] = ["let ", "fn ", "match ", "self.", "    ", "{\n", "}\n", " => "];
    for file in 0..files {
        let directory = root.join(format!("src/{}", file / DIRECTORY_FILES));
        fs::create_dir_all(&directory).expect("a directory can be created");
        let mut content = Vec::with_capacity(bytes + 16);
        while content.len() < bytes {
            match file % 2 {
                0 if next() % 8 > 0 => content.extend(WORDS[next() as usize % 8].as_bytes()),
                0 => content.extend(format!("{:08x} ", next()).as_bytes()),
                _ => content.extend((next() as u32).to_le_bytes()),
            }
        }
        let written = fs::File::create(directory.join(format!("{file}.txt")))
            .and_then(|mut created| created.write_all(&content[..bytes]));
        written.expect("a file can be written");
    }
}

/// Returns what is allocated below a directory, in units of 10⁶ bytes. A file with several names
/// counts once.
pub(crate) fn disk_mb(directory: &Path) -> f64 {
    let mut pending = vec![directory.to_owned()];
    let (mut seen, mut blocks) = (std::collections::HashSet::new(), 0);
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            }
            if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                blocks += metadata.blocks();
            }
        }
    }
    blocks as f64 * 512.0 / 1e6
}
