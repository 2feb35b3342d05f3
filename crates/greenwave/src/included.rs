//! Copies ignored files that a project needs into working copies.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path};

use greenwave_dir::{Access, Dir, FileKind};
use greenwave_inputs::{ALWAYS_EXCLUDED, FileStamp};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::env_file::is_env_file;

/// Characters that make a part of a pattern match more than one name.
const WILDCARDS: [char; 4] = ['*', '?', '[', '\\'];

/// The files that the patterns of a plan include, with the stamps of their copies.
#[derive(Debug, Default)]
pub(crate) struct Included(BTreeMap<String, FileStamp>);

/// Returns whether a pattern of a plan stays inside the project.
pub(crate) fn is_valid_pattern(pattern: &str) -> bool {
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    !pattern.is_empty()
        && Path::new(pattern).components().all(is_inside)
        && Path::new(pattern).components().any(|part| matches!(part, Component::Normal(_)))
        && matcher(Path::new("/"), &[pattern.to_owned()]).is_some()
}

/// Returns whether a file that git ignores probably holds secrets, by its name.
pub(crate) fn is_secret(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let is_key =
        [".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx"].iter().any(|end| name.ends_with(end));
    let is_named = ["secret", "credential", "password", "token"].iter().any(|word| name.contains(word));
    let is_ssh = name.starts_with("id_") && !name.contains('.');
    let is_data =
        !["py", "js", "ts", "rs", "go", "rb", "java"].iter().any(|code| name.ends_with(&format!(".{code}")));
    is_env_file(&name)
        || is_key
        || (is_data && (is_named || is_ssh))
        || [".npmrc", ".netrc", ".pypirc"].contains(&&*name)
}

/// Returns the files and links that patterns match, relative to the project: a matching directory
/// with everything in it. A pattern is relative to the project.
///
/// # Errors
/// The error of the operating system.
pub(crate) fn find(project: &Path, patterns: &[String]) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let Some(matcher) = matcher(project, patterns) else { return Ok(found) };
    // The flag says whether everything in the directory matches.
    let mut pending: Vec<(String, bool)> = starts(patterns).into_iter().map(|start| (start, false)).collect();
    while let Some((path, is_within)) = pending.pop() {
        let at = project.join(&path);
        let Ok(metadata) = at.symlink_metadata() else { continue };
        let matches = is_within
            || (!path.is_empty() && matcher.matched_path_or_any_parents(&at, metadata.is_dir()).is_ignore());
        if !metadata.is_dir() {
            if matches && (metadata.is_file() || metadata.is_symlink()) {
                found.push(path);
            }
            continue;
        }
        for entry in fs::read_dir(&at)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().filter(|name| !ALWAYS_EXCLUDED.contains(name)) else { continue };
            pending.push((if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }, matches));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

impl Included {
    /// Copies files that are missing from a working copy or differ from the copies made before.
    /// Modes, times and links are copied as well. Paths are relative to both directories.
    ///
    /// # Errors
    /// The path that cannot be copied, and the error of the operating system.
    pub(crate) fn restore(
        &mut self,
        from: &Dir,
        to: &Dir,
        paths: &[String],
    ) -> Result<(), (String, io::Error)> {
        for path in paths {
            let stamp = || to.metadata(path).ok().map(|metadata| FileStamp::from_stat(metadata.stat()));
            let now = stamp();
            let is_proof = now.is_some_and(|now| !now.is_in_memory());
            if is_proof && now.as_ref() == self.0.get(path) {
                continue;
            }
            let copied = copy(from, to, path).map_err(|error| (path.clone(), error))?;
            if copied && let Some(stamp) = stamp() {
                self.0.insert(path.clone(), stamp);
            }
        }
        Ok(())
    }

    /// Returns whether a path was copied.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

/// Copies a file or link. Returns `false` if it does not exist any more.
pub(crate) fn copy(from: &Dir, to: &Dir, path: &str) -> io::Result<bool> {
    let metadata = match from.metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    // A program may have put a link or a file in the place of a directory.
    let mut parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents.into_iter().filter(|parent| *parent != Path::new("")) {
        if to.metadata(parent).is_ok_and(|metadata| !metadata.is_dir()) {
            to.remove_all(parent)?;
        }
    }
    to.remove_all(path)?;
    let (parent, name) = to.create_parent(path, 0o777)?;
    if metadata.kind() == FileKind::Link {
        parent.symlink(from.read_link(path)?, name)?;
        return Ok(true);
    }
    let mut source = from.open_file(path, Access::Read, 0)?;
    let mut target = parent.open_file(name, Access::CreateNew, 0o600)?;
    io::copy(&mut source, &mut target)?;
    let metadata = source.metadata()?;
    target.set_permissions(metadata.permissions())?;
    target.set_times(fs::FileTimes::new().set_modified(metadata.modified()?))?;
    Ok(true)
}

fn matcher(project: &Path, patterns: &[String]) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new(project);
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./");
        builder.add_line(None, &format!("/{pattern}")).ok()?;
    }
    builder.build().ok()
}

/// Returns the paths at which a search for patterns starts: their parts before the first wildcard.
fn starts(patterns: &[String]) -> Vec<String> {
    let start = |pattern: &String| {
        let parts = pattern.trim_start_matches("./").trim_end_matches('/').split('/');
        let plain: Vec<&str> = parts.take_while(|part| !part.contains(WILDCARDS)).collect();
        plain.join("/")
    };
    let mut starts: Vec<String> = patterns.iter().map(start).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn secrets_are_found_by_their_names() {
        for path in
            [".env", "web/.env.local", "certs/server.pem", "private.key", "id_ed25519", "secrets.json"]
        {
            assert!(is_secret(path), "{path}");
        }
        for path in [".env.example", "gen/schema.py", "gen/tokens.rs", "node_modules/x/key.js", "data.bin"] {
            assert!(!is_secret(path), "{path}");
        }
    }

    #[test]
    fn patterns_stay_inside_the_project() {
        for pattern in [".env", "gen/**", ".venv", "**/node_modules", "./a/"] {
            assert!(is_valid_pattern(pattern), "{pattern}");
        }
        for pattern in ["", "..", "../x", "/etc/passwd", "a/../../b", "./"] {
            assert!(!is_valid_pattern(pattern), "{pattern}");
        }
    }

    #[test]
    fn files_and_whole_directories_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in
            [".env", "x/.env", "gen/a/b.py", "node_modules/.bin/tool", "p/node_modules/m.js", "src/a.rs"]
        {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        symlink("../a", root.join("node_modules/link")).unwrap();
        fs::create_dir_all(root.join("gen/.git")).unwrap();
        fs::write(root.join("gen/.git/config"), "").unwrap();
        let find = |patterns: &[&str]| {
            find(root, &patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(find(&[".env"]), [".env"]);
        assert_eq!(find(&["gen/**", "missing"]), ["gen/a/b.py"]);
        assert_eq!(find(&["node_modules"]), ["node_modules/.bin/tool", "node_modules/link"]);
        assert_eq!(find(&["**/node_modules"]).len(), 3);
        assert_eq!(find(&["*/.env"]), ["x/.env"]);
    }

    #[test]
    fn changed_copies_are_restored() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("gen")).unwrap();
        fs::write(from.path().join("gen/a"), "a").unwrap();
        let paths = ["gen/a".to_owned()];
        let mut included = Included::default();
        let dirs = [from.path(), to.path()].map(|path| Dir::open(path).unwrap());
        let mut restore = || included.restore(&dirs[0], &dirs[1], &paths).unwrap();
        restore();
        let copy = to.path().join("gen/a");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "a");
        fs::write(&copy, "changed").unwrap();
        restore();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "a");
        fs::remove_dir_all(to.path().join("gen")).unwrap();
        symlink(from.path().join("gen"), to.path().join("gen")).unwrap();
        restore();
        assert!(to.path().join("gen").symlink_metadata().unwrap().is_dir(), "a link is not followed");
        assert_eq!(fs::read_to_string(from.path().join("gen/a")).unwrap(), "a");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn copies_in_memory_are_restored_whatever_their_timestamps() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        fs::write(from.path().join("a"), "a").unwrap();
        let mut included = Included::default();
        let dirs = [from.path(), to.path()].map(|path| Dir::open(path).unwrap());
        let mut restore = || included.restore(&dirs[0], &dirs[1], &["a".to_owned()]).unwrap();
        restore();
        let copy = to.path().join("a");
        crate::mapped_write::mapped_write(&copy);
        assert_eq!(fs::read_to_string(&copy).unwrap(), "x");
        restore();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "a");
    }
}
