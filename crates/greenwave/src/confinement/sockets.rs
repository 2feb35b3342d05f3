//! Finds the sockets of running programs in directories where sessions of users have them: those of
//! terminal multiplexers, editors and SSH agents. No variable has to name them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Directories with the sockets of sessions.
const DIRECTORIES: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run/user"];
/// Maximum number of sockets that are hidden. Each is a mount for each command.
pub(super) const SOCKETS_MAX: usize = 200;

/// The sockets of sessions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sockets {
    /// The sockets to hide.
    pub(super) hidden: Vec<PathBuf>,
    /// Number of further sockets, above [`SOCKETS_MAX`].
    pub(super) left_out: usize,
}

/// Returns the sockets that programs have bound in such a directory or in the home directory,
/// except for those below one of the `permitted` paths. Those of this user come first, so that
/// other users cannot push them out.
pub(super) fn of_sessions(home: Option<&Path>, permitted: &[&Path]) -> Sockets {
    // Systems without `/proc` have no such list.
    bound(&fs::read("/proc/net/unix").unwrap_or_default(), home, permitted)
}

fn bound(table: &[u8], home: Option<&Path>, permitted: &[&Path]) -> Sockets {
    let is_socket = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let is_of_session = |path: &PathBuf| {
        let mut directories = DIRECTORIES.iter().map(Path::new).chain(home);
        directories.any(|directory| path.starts_with(directory))
            && !permitted.iter().any(|permitted| path.starts_with(permitted))
    };
    let lines = table.split(|byte| *byte == b'\n').skip(1);
    let mut paths: Vec<PathBuf> = lines.filter_map(path_of).filter(is_of_session).filter(is_socket).collect();
    let user = rustix::process::geteuid().as_raw();
    let is_foreign = |path: &PathBuf| path.symlink_metadata().map_or(true, |found| found.uid() != user);
    paths.sort_by_cached_key(|path| (is_foreign(path), path.clone()));
    paths.dedup();
    let left_out = paths.len().saturating_sub(SOCKETS_MAX);
    paths.truncate(SOCKETS_MAX);
    Sockets { hidden: paths, left_out }
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
        let found = of_sessions(None, &[&own]);
        let found: Vec<_> =
            found.hidden.into_iter().filter(|path| path.starts_with(directory.path())).collect();
        assert_eq!(found, [at("a b"), at("d")]);
    }

    #[test]
    fn bound_sockets_of_the_home_directory_are_found() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at(".agent")).unwrap();
        let sockets = ["agent.sock", ".agent/own.sock"].map(|name| UnixListener::bind(at(name)));
        // The length of addresses is limited.
        if sockets.iter().any(Result::is_err) {
            return;
        }
        let found = |home: Option<&Path>| of_sessions(home, &[&at(".agent")]).hidden;
        assert!(!found(None).contains(&at("agent.sock")));
        let found = found(Some(directory.path()));
        assert!(found.contains(&at("agent.sock")) && !found.contains(&at(".agent/own.sock")), "{found:?}");
    }

    /// The first sockets by path are hidden, those of the user before those of others.
    #[test]
    fn the_number_of_hidden_sockets_is_limited() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let at = |number: usize| directory.path().join(format!("{number:03}"));
        let foreign = directory.path().join("-foreign");
        // Further names of one socket, which need no descriptors.
        let _socket = UnixListener::bind(at(0)).unwrap();
        let _foreign = UnixListener::bind(&foreign).unwrap();
        (1..SOCKETS_MAX + 5).for_each(|number| fs::hard_link(at(0), at(number)).unwrap());
        let line = |path: &Path| format!("f: 00000002 00000000 00010000 0001 01 1 {}\n", path.display());
        let table = |count: usize| {
            let own: String = (0..count).rev().map(|number| line(&at(number))).collect();
            format!("Num\n{own}{}", line(&foreign)).into_bytes()
        };
        let own = |count: usize| (0..count).map(at);
        let all = Sockets {
            hidden: [foreign.clone()].into_iter().chain(own(SOCKETS_MAX - 1)).collect(),
            left_out: 0,
        };
        assert_eq!(bound(&table(SOCKETS_MAX - 1), None, &[]), all);
        assert_eq!(bound(&table(SOCKETS_MAX + 5), None, &[]), Sockets { left_out: 6, ..all });
        if std::os::unix::fs::chown(&foreign, Some(1234), None).is_ok() {
            let expected = Sockets { hidden: own(SOCKETS_MAX).collect(), left_out: 6 };
            assert_eq!(bound(&table(SOCKETS_MAX + 5), None, &[]), expected);
        }
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
