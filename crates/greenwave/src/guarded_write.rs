//! Replaces files of the project without losing an edit that the user makes at the same moment.
//!
//! A file is exchanged with its replacement in one step (`RENAME_EXCHANGE`), and what it was is
//! compared afterwards. If the user has changed it in the meantime, it is put back. What cannot be
//! noticed is a program that holds the old file open without having written yet.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::file_state::state_of;
use crate::tree::{Change, File};

/// Prefix of complete files that are about to be exchanged, and of files after the exchange.
const PREFIX: &str = ".greenwave-swap-";

/// Puts the file at `temporary` in the place of `path`. Returns `false`, with the project as it
/// was, if the file at `path` was not in the state `before`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn replace(
    temporary: tempfile::TempPath,
    path: &Path,
    before: Option<File>,
    after: Option<File>,
) -> io::Result<bool> {
    let Some(before) = before else { return create(&temporary, path) };
    let swap = swap_path(path);
    fs::rename(&temporary, &swap)?;
    // The file is gone under its old name.
    let _ = temporary.keep();
    let exchanged = exchange(&swap, path);
    match exchanged {
        Ok(()) => {}
        Err(error) if is_unsupported(&error) => {
            if state_of(path)? != Some(before) {
                fs::remove_file(&swap)?;
                return Ok(false);
            }
            fs::rename(&swap, path)?;
            return Ok(true);
        }
        Err(error) => {
            let _ = fs::remove_file(&swap);
            return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
        }
    }
    let is_expected = state_of(&swap)? == Some(before);
    if !is_expected {
        put_back(&swap, path, after)?;
    }
    fs::remove_file(&swap)?;
    Ok(is_expected)
}

/// Removes the file at `path`. Returns `false`, with the project as it was, if it was not in the
/// state `before`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn remove(path: &Path, before: Option<File>) -> io::Result<bool> {
    let swap = swap_path(path);
    match fs::rename(path, &swap) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(before.is_none()),
        moved => moved?,
    }
    if state_of(&swap)? == before {
        fs::remove_file(&swap)?;
        return Ok(true);
    }
    // A file that the user has created in the meantime is newer.
    match fs::hard_link(&swap, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&swap, path)?,
        _ => fs::remove_file(&swap)?,
    }
    Ok(false)
}

/// Removes remains of a killed process beside the file of a change. A version that the user
/// wrote at that moment is put back.
pub(crate) fn recover(root: &Path, change: &Change) {
    let path = root.join(&change.path);
    for swap in leftovers(&path) {
        let (Ok(swapped), Ok(now)) = (state_of(&swap), state_of(&path)) else { continue };
        let is_ours = swapped == change.before || swapped == change.after;
        let recovered = if !is_ours && (now.is_none() || now == change.after) {
            fs::rename(&swap, &path)
        } else {
            fs::remove_file(&swap)
        };
        if let Err(error) = recovered {
            tracing::warn!(%error, file = %swap.display(), "cannot remove a file of an interrupted merge");
        }
    }
}

fn create(temporary: &Path, path: &Path) -> io::Result<bool> {
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // A hard link does not replace a file either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(temporary, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    }
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(io::Error::from)
}

fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| unsupported.contains(&code))
}

/// Undoes an exchange. If the user replaces the file once more meanwhile, the newest version stays.
fn put_back(swap: &Path, path: &Path, after: Option<File>) -> io::Result<()> {
    match exchange(swap, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The user has removed the new file: only the version before remains.
            return fs::rename(swap, path).and_then(|()| fs::File::create(swap).map(drop));
        }
        exchanged => exchanged?,
    }
    if state_of(swap)? != after { exchange(swap, path) } else { Ok(()) }
}

/// Returns a new name beside a file that contains the name of that file.
fn swap_path(path: &Path) -> PathBuf {
    let mut name = swap_prefix(path);
    name.push(format!("{:x}-{:x}", std::process::id(), counter()));
    path.with_file_name(name)
}

fn swap_prefix(path: &Path) -> OsString {
    let name = path.file_name().unwrap_or_default();
    let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
    format!("{PREFIX}{}-", &hash[..16]).into()
}

fn counter() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the numbers matter.
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

fn leftovers(path: &Path) -> Vec<PathBuf> {
    let prefix = swap_prefix(path);
    let entries = path.parent().and_then(|parent| fs::read_dir(parent).ok());
    let entries = entries.into_iter().flatten().flatten();
    let named =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    entries.filter(named).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use greenwave_storage::BlobId;
    use greenwave_testing::EntryKind;

    use super::*;

    fn file(text: &str) -> Option<File> {
        Some(File { kind: EntryKind::Regular, blob: BlobId::of(text.as_bytes()) })
    }

    fn temporary(dir: &Path, text: &str) -> tempfile::TempPath {
        let mut file = tempfile::NamedTempFile::new_in(dir).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.into_temp_path()
    }

    /// Returns the names and contents of a directory.
    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let read = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        };
        let mut files: Vec<_> = entries.map(read).collect();
        files.sort();
        files
    }

    #[track_caller]
    fn check(now: Option<&str>, before: Option<&str>, after: Option<&str>, expected: (bool, Option<&str>)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        if let Some(now) = now {
            fs::write(&path, now).unwrap();
        }
        let before = before.and_then(file);
        let done = match after {
            Some(text) => replace(temporary(dir.path(), text), &path, before, file(text)).unwrap(),
            None => remove(&path, before).unwrap(),
        };
        let left: Vec<_> = expected.1.map(|text| ("a.txt".to_owned(), text.to_owned())).into_iter().collect();
        assert_eq!((done, files(dir.path())), (expected.0, left));
    }

    #[test]
    fn only_the_expected_file_is_replaced() {
        check(Some("old"), Some("old"), Some("new"), (true, Some("new")));
        check(Some("mine"), Some("old"), Some("new"), (false, Some("mine")));
        check(None, Some("old"), Some("new"), (false, None));
        check(None, None, Some("new"), (true, Some("new")));
        check(Some("mine"), None, Some("new"), (false, Some("mine")));
        check(Some("old"), Some("old"), None, (true, None));
        check(Some("mine"), Some("old"), None, (false, Some("mine")));
        check(None, Some("old"), None, (false, None));
    }

    #[test]
    fn a_version_of_the_user_is_recovered_after_a_kill() {
        let change = Change { path: "a.txt".to_owned(), before: file("old"), after: file("new") };
        for (swapped, now, expected) in [
            ("mine", "new", "mine"),
            ("old", "new", "new"),
            ("new", "old", "old"),
            ("mine", "newer", "newer"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.txt");
            fs::write(&path, now).unwrap();
            fs::write(swap_path(&path), swapped).unwrap();
            recover(dir.path(), &change);
            assert_eq!(files(dir.path()), [("a.txt".to_owned(), expected.to_owned())], "{swapped} {now}");
        }
    }

    /// A user who saves at any moment, by rename or in place, never loses the last version.
    #[test]
    fn a_concurrent_save_is_never_lost() {
        for saves_by_rename in [true, false] {
            for round in 0..200 {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("a.txt");
                fs::write(&path, "old").unwrap();
                let new = temporary(dir.path(), "new");
                let barrier = std::sync::Barrier::new(2);
                let replaced = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        barrier.wait();
                        for _ in 0..round * 20 {
                            std::hint::spin_loop();
                        }
                        if saves_by_rename {
                            let saved = dir.path().join("saved");
                            fs::write(&saved, "mine").unwrap();
                            fs::rename(&saved, &path).unwrap();
                        } else if let Ok(mut file) =
                            fs::OpenOptions::new().write(true).truncate(true).open(&path)
                        {
                            file.write_all(b"mine").unwrap();
                        }
                    });
                    barrier.wait();
                    replace(new, &path, file("old"), file("new")).unwrap()
                });
                let text = fs::read_to_string(&path).unwrap();
                assert!(
                    text == "mine" || (!saves_by_rename && replaced),
                    "round {round}: {text}, {replaced}"
                );
            }
        }
    }
}
