//! Hashes the index of a git repository without the timestamps in it.
//!
//! Commands such as `git status` refresh the index: they store the timestamps of files that have
//! not changed. What counts are paths, modes, ids and flags.
//! Format: <https://git-scm.com/docs/index-format>.

use std::path::Path;

/// Length of the header: signature, version and number of entries.
const HEADER: usize = 12;
/// Length of an entry before its path, without the extended flags.
const FIXED: usize = 62;
/// Length of the checksum at the end (SHA-1).
const CHECKSUM: usize = 20;
/// Flag of entries with two more bytes of flags (version 3).
const EXTENDED: u16 = 0x4000;
/// Extensions that can be computed from the entries, or that speed up the reading of them.
const DERIVED: [&[u8]; 3] = [b"TREE", b"EOIE", b"IEOT"];

/// Returns whether a path is that of an index of git.
pub(crate) fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "index") && path.iter().any(|name| name == ".git")
}

/// Returns a BLAKE3 hash of the entries of an index. Returns `None` for other content, versions
/// other than 2 and 3, for repositories with SHA-256, and for indexes with extensions that add
/// facts to the entries.
pub(crate) fn digest(index: &[u8]) -> Option<[u8; 32]> {
    let body = index.get(..index.len().checked_sub(CHECKSUM)?)?;
    let number = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let version = number(4)?;
    if !body.starts_with(b"DIRC") || !(2..=3).contains(&version) {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"greenwave git index").update(&body[..HEADER]);
    let mut at = HEADER;
    for _ in 0..number(8)? {
        let entry = body.get(at..)?;
        // Mode, and then id and flags, without the times, numbers, owners and sizes between.
        let flags = u16::from_be_bytes(entry.get(FIXED - 2..FIXED)?.try_into().ok()?);
        let start = if flags & EXTENDED == 0 { FIXED } else { FIXED + 2 };
        let length = entry.get(start..)?.iter().position(|byte| *byte == 0)?;
        hasher.update(entry.get(24..28)?).update(entry.get(40..start + length + 1)?);
        // Entries are padded with one to eight zeros.
        at += (start + length + 8) / 8 * 8;
    }
    while at < body.len() {
        let size = usize::try_from(number(at + 4)?).ok()?;
        if !DERIVED.contains(&body.get(at..at + 4)?) {
            return None;
        }
        at = at.checked_add(8)?.checked_add(size)?;
    }
    (at == body.len()).then(|| *hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn git(directory: &Path, arguments: &[&str]) -> bool {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.untrackedCache=false",
            "-c",
            "index.version=2",
        ]);
        command.env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE");
        command.args(arguments).current_dir(directory).output().is_ok_and(|output| output.status.success())
    }

    #[test]
    fn a_refresh_leaves_the_hash_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (root, file) = (directory.path(), directory.path().join("a.txt"));
        if !git(root, &["init", "-q"]) {
            return;
        }
        fs::write(&file, "one").unwrap();
        fs::write(root.join("a longer name.txt"), "one").unwrap();
        assert!(git(root, &["add", "."]));
        let read = || fs::read(root.join(".git/index")).unwrap();
        let before = read();
        let past = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
        fs::File::options().write(true).open(&file).unwrap().set_modified(past).unwrap();
        assert!(git(root, &["update-index", "-q", "--refresh"]));
        let refreshed = read();
        assert_ne!(before, refreshed, "the timestamp is stored");
        assert!(digest(&before).is_some());
        assert_eq!(digest(&before), digest(&refreshed));
        fs::write(&file, "two").unwrap();
        assert!(git(root, &["add", "."]));
        let changed = read();
        assert_ne!(digest(&changed), digest(&refreshed), "the id differs");
        assert!(git(root, &["update-index", "--chmod=+x", "a.txt"]));
        assert_ne!(digest(&read()), digest(&changed), "the mode differs");
    }

    #[test]
    fn other_content_has_no_hash() {
        let header =
            |version: u8, entries: u8| [b"DIRC".as_slice(), &[0, 0, 0, version, 0, 0, 0, entries]].concat();
        let with_end = |start: Vec<u8>, end: &[u8]| [start.as_slice(), end, &[0; CHECKSUM]].concat();
        assert!(digest(&with_end(header(2, 0), b"")).is_some());
        assert!(digest(&with_end(header(2, 0), b"TREE\0\0\0\x01x")).is_some());
        for other in [
            Vec::new(),
            b"text".to_vec(),
            header(2, 0),
            with_end(header(4, 0), b""),
            with_end(header(2, 1), b""),
            with_end(header(2, 0), b"TREE\0\0\0\x02x"),
            with_end(header(2, 0), b"FSMN\0\0\0\x01x"),
            with_end(header(2, 0), b"TREE\xff\xff\xff\xff"),
        ] {
            assert_eq!(digest(&other), None, "{other:?}");
        }
    }

    #[test]
    fn only_files_of_git_are_indexes() {
        for path in ["/p/.git/index", "/p/.git/worktrees/x/index", ".git/modules/m/index"] {
            assert!(is_index(Path::new(path)), "{path}");
        }
        for path in ["/p/index", "/p/.git/HEAD", "/p/.gitx/index"] {
            assert!(!is_index(Path::new(path)), "{path}");
        }
    }
}
