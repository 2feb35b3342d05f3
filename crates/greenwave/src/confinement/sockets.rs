//! Finds the sockets of running programs in directories where sessions of users have them: those of
//! terminal multiplexers, editors and SSH agents. No variable has to name them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Directories with the sockets of sessions.
const DIRECTORIES: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user"];
/// Maximum number of sockets that are hidden. Each is a mount for each command.
const SOCKETS_MAX: usize = 200;

/// Returns the sockets that programs have bound in such a directory, except for those below one of
/// the `permitted` paths. Those of this user come first, so that other users cannot push them out.
pub(super) fn of_sessions(permitted: &[&Path]) -> Vec<PathBuf> {
    // Systems without `/proc` have no such list.
    bound(&fs::read("/proc/net/unix").unwrap_or_default(), permitted)
}

fn bound(table: &[u8], permitted: &[&Path]) -> Vec<PathBuf> {
    let is_socket = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let is_of_session = |path: &PathBuf| {
        DIRECTORIES.iter().any(|directory| path.starts_with(directory))
            && !permitted.iter().any(|permitted| path.starts_with(permitted))
    };
    let lines = table.split(|byte| *byte == b'\n').skip(1);
    let mut paths: Vec<PathBuf> = lines.filter_map(path_of).filter(is_of_session).filter(is_socket).collect();
    let user = rustix::process::geteuid().as_raw();
    let is_foreign = |path: &PathBuf| path.symlink_metadata().map_or(true, |found| found.uid() != user);
    paths.sort_by_cached_key(|path| (is_foreign(path), path.clone()));
    paths.dedup();
    paths.truncate(SOCKETS_MAX);
    paths
}

/// Returns the absolute path in a line of the table, which begins in its eighth column.
fn path_of(line: &[u8]) -> Option<PathBuf> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    let before = line[..at].split(|byte| *byte == b' ').filter(|word| !word.is_empty()).count();
    (before == 7).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&line[at..])))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn bound_sockets_of_sessions_are_found() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let at = |name: &str| directory.path().join(name);
        let _stream = UnixListener::bind(at("a b")).unwrap();
        let _datagram = UnixDatagram::bind(at("d")).unwrap();
        drop(UnixListener::bind(at("gone")).unwrap());
        fs::create_dir(at("own")).unwrap();
        let _own = UnixListener::bind(at("own/s")).unwrap();
        let own = at("own");
        let found = of_sessions(&[&own]);
        let found: Vec<_> = found.into_iter().filter(|path| path.starts_with(directory.path())).collect();
        assert_eq!(found, [at("a b"), at("d")]);
    }

    #[test]
    fn only_absolute_paths_of_the_last_column_count() {
        let line = |path: &str| format!("ffff: 00000002 00000000 00010000 0001 01 12345 {path}");
        assert_eq!(path_of(line("/tmp/a /b").as_bytes()), Some("/tmp/a /b".into()));
        for path in ["@/tmp/a", "relative/path", ""] {
            assert_eq!(path_of(line(path).as_bytes()), None, "{path}");
        }
        assert_eq!(path_of(b"ffff: 00000002 00000000 00010000 0001 01 12345"), None);
    }
}
