//! Replaces files of the project without losing an edit that the user makes at the same moment.
//!
//! A file is exchanged with its replacement in one step (`RENAME_EXCHANGE`), and the old file is
//! compared afterwards. If the user has changed it in the meantime, it is put back. A program that
//! holds the old file open and writes to it later is not noticed.

use std::ffi::{OsStr, OsString};
use std::io;

use greenwave_dir::{Access, Dir, Temporary};

use crate::file_state::state_of;
use crate::tree::{Change, File};

/// Prefix of complete files that are about to be exchanged, and of files after the exchange.
const PREFIX: &str = ".greenwave-swap-";

/// Puts a temporary file in the place of `name` in its directory. Returns `false`, with the project
/// as it was, if that file was not in the state `before`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn replace(
    temporary: Temporary,
    name: &OsStr,
    before: Option<File>,
    after: Option<File>,
) -> io::Result<bool> {
    let Some(before) = before else { return create(temporary, name) };
    let directory = temporary.directory().clone();
    let swap = swap_name(name);
    temporary.replace(&swap)?;
    match directory.exchange(&swap, name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            if state_of(&directory, name)? != Some(before) {
                directory.remove_file(&swap)?;
                return Ok(false);
            }
            directory.rename(&swap, name)?;
            return Ok(true);
        }
        Err(error) => {
            let _ = directory.remove_file(&swap);
            return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
        }
    }
    let is_expected = state_of(&directory, &swap)? == Some(before);
    if !is_expected {
        put_back(&directory, &swap, name, after)?;
    }
    directory.remove_file(&swap)?;
    Ok(is_expected)
}

/// Removes the file `name`. Returns `false`, with the project as it was, if it was not in the state
/// `before`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn remove(directory: &Dir, name: &OsStr, before: Option<File>) -> io::Result<bool> {
    let swap = swap_name(name);
    match directory.rename(name, &swap) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(before.is_none()),
        moved => moved?,
    }
    if state_of(directory, &swap)? == before {
        directory.remove_file(&swap)?;
        return Ok(true);
    }
    // A file that the user has created in the meantime is newer.
    match directory.hard_link(&swap, name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => directory.rename(&swap, name)?,
        _ => directory.remove_file(&swap)?,
    }
    Ok(false)
}

/// Removes the files that a killed process has left beside the file of a change. A version that
/// the user wrote at that moment is put back.
pub(crate) fn recover(root: &Dir, change: &Change) {
    let Ok((directory, name)) = root.parent(&change.path) else { return };
    for swap in leftovers(&directory, &name) {
        let states = (state_of(&directory, &swap), state_of(&directory, &name));
        let (Ok(swapped), Ok(now)) = states else { continue };
        let is_ours = swapped == change.before || swapped == change.after;
        let recovered = if !is_ours && (now.is_none() || now == change.after) {
            directory.rename(&swap, &name)
        } else {
            directory.remove_file(&swap)
        };
        if let Err(error) = recovered {
            let file = directory.path().join(&swap);
            tracing::warn!(%error, file = %file.display(), "cannot remove a file of an interrupted merge");
        }
    }
}

fn create(temporary: Temporary, name: &OsStr) -> io::Result<bool> {
    match temporary.directory().rename_new(temporary.name(), name) {
        Ok(()) => {
            // The file is gone under its old name.
            let _ = temporary.keep();
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Undoes an exchange. If the user replaces the file once more meanwhile, the newest version stays.
fn put_back(directory: &Dir, swap: &OsStr, name: &OsStr, after: Option<File>) -> io::Result<()> {
    match directory.exchange(swap, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The user has removed the new file: only the version before exists.
            directory.rename(swap, name)?;
            return directory.open_file(swap, Access::CreateNew, 0o600).map(drop);
        }
        exchanged => exchanged?,
    }
    if state_of(directory, swap)? != after { directory.exchange(swap, name) } else { Ok(()) }
}

/// Returns a new name that shows which file of the directory it belongs to.
fn swap_name(name: &OsStr) -> OsString {
    let mut swap = swap_prefix(name);
    swap.push(format!("{:x}-{:x}", std::process::id(), counter()));
    swap
}

fn swap_prefix(name: &OsStr) -> OsString {
    let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
    format!("{PREFIX}{}-", &hash[..16]).into()
}

fn counter() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the numbers matter.
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

fn leftovers(directory: &Dir, name: &OsStr) -> Vec<OsString> {
    let prefix = swap_prefix(name);
    let names = directory.entries().unwrap_or_default().into_iter().map(|entry| entry.name);
    names.filter(|name| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use greenwave_storage::BlobId;
    use greenwave_testing::EntryKind;

    use super::*;

    fn file(text: &str) -> Option<File> {
        Some(File { kind: EntryKind::Regular, blob: BlobId::of(text.as_bytes()) })
    }

    fn temporary(dir: &Path, text: &str) -> Temporary {
        let mut file = Dir::open(dir).unwrap().temporary(".tmp", 0o600).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
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
        let (before, name) = (before.and_then(file), OsStr::new("a.txt"));
        let done = match after {
            Some(text) => replace(temporary(dir.path(), text), name, before, file(text)).unwrap(),
            None => remove(&Dir::open(dir.path()).unwrap(), name, before).unwrap(),
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
            fs::write(path.with_file_name(swap_name(OsStr::new("a.txt"))), swapped).unwrap();
            recover(&Dir::open(dir.path()).unwrap(), &change);
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
                    replace(new, OsStr::new("a.txt"), file("old"), file("new")).unwrap()
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
