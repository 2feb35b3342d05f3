//! Finds the other paths of files that the system has mounted at several places.
//!
//! Both kinds of rules need them: a mount covers a path and not the file behind it, and a right on
//! a directory holds for its files wherever they are mounted. WSL, for example, shows the whole
//! root directory a second time at `/mnt/wslg/distro`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mounts of this process (`proc_pid_mountinfo(5)`).
const MOUNTS: &str = "/proc/self/mountinfo";

/// A directory or file of a file system, and the path at which it is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: Vec<u8>,
    root: PathBuf,
    at: PathBuf,
}

/// The mounts of this process.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// In the order in which they were made.
    all: Vec<Mount>,
    /// The index of the visible one of the mounts at each path.
    at: HashMap<OsString, usize>,
    /// The indices of the mounts of each device.
    of_device: HashMap<Vec<u8>, Vec<usize>>,
}

impl Mounts {
    /// Lists the mounts. Other systems than Linux have none that matter.
    pub(crate) fn now() -> Self {
        let lines = fs::read(MOUNTS).unwrap_or_default();
        Self::new(lines.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    fn new(all: Vec<Mount>) -> Self {
        let (mut at, mut of_device) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (index, mount) in all.iter().enumerate() {
            // Of several mounts on one path, the last one is visible.
            at.insert(mount.at.as_os_str().to_owned(), index);
            of_device.entry(mount.device.clone()).or_default().push(index);
        }
        Self { all, at, of_device }
    }

    /// Returns paths together with their other paths, without repetitions.
    pub(crate) fn with_aliases(&self, paths: Vec<PathBuf>) -> Vec<PathBuf> {
        let others: Vec<PathBuf> = paths.iter().flat_map(|path| self.aliases(path)).collect();
        let mut all = paths;
        all.extend(others);
        all.sort();
        all.dedup();
        all
    }

    /// Returns the other paths of a resolved path, and the paths of what lies inside of it. The
    /// path itself need not exist.
    fn aliases(&self, path: &Path) -> Vec<PathBuf> {
        let own = path.ancestors().find_map(|above| self.at.get(above.as_os_str()));
        let Some(own) = own.and_then(|index| self.all.get(*index)) else { return Vec::new() };
        let of_device = self.of_device.get(&own.device).map(Vec::as_slice).unwrap_or_default();
        // Most file systems are mounted once.
        if of_device.len() == 1 {
            return Vec::new();
        }
        let Ok(rest) = path.strip_prefix(&own.at) else { return Vec::new() };
        let inside = joined(&own.root, rest);
        let alias = |mount: &Mount| {
            let (alias, original) = match inside.strip_prefix(&mount.root) {
                Ok(rest) => (joined(&mount.at, rest), path.to_owned()),
                Err(_) => (mount.at.clone(), joined(path, mount.root.strip_prefix(&inside).ok()?)),
            };
            (!alias.starts_with(path) && is_same(&alias, &original)).then_some(alias)
        };
        of_device.iter().filter_map(|index| self.all.get(*index)).filter_map(alias).collect()
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ').skip(2);
        let device = words.next()?.to_owned();
        let mut path = || Some(PathBuf::from(OsString::from_vec(unescaped(words.next()?))));
        Some(Self { device, root: path()?, at: path()? })
    }
}

/// Replaces the octal numbers by which the kernel writes spaces, line breaks and backslashes.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(byte);
                rest = &after[3..];
            }
            None => {
                text.push(*first);
                rest = after;
            }
        }
    }
    text
}

/// Joins two paths. If the second one is empty, `Path::join` would append a slash, which leads
/// nowhere from a file.
fn joined(above: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { above.to_owned() } else { above.join(rest) }
}

/// Returns whether two paths lead to the same file, or if neither exists, their directories. Other
/// mounts may cover one of them.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    match (identity(one), identity(other)) {
        (None, None) => {
            let above = |path: &Path| path.parent().and_then(identity);
            one.file_name() == other.file_name() && above(one).is_some() && above(one) == above(other)
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_parsed() {
        let line = br"36 35 98:0 /a\040b\134 /mnt/c\011d rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mount { device: b"98:0".to_vec(), root: "/a b\\".into(), at: "/mnt/c\td".into() };
        assert_eq!(Mount::parse(line), Some(expected));
        for line in ["", "36 35", "36 35 98:0 /a"] {
            assert_eq!(Mount::parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(unescaped(br"\1\999\"), br"\1\999\");
    }

    #[test]
    fn paths_of_the_same_files_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        for path in ["home/u/.ssh/keys", "home/u/other", "copy/.ssh/keys", "keys"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        // Links take the place of mounts, which not every user can make.
        fs::remove_dir_all(at("copy")).unwrap();
        fs::remove_dir(at("keys")).unwrap();
        std::os::unix::fs::symlink(at("home/u"), at("copy")).unwrap();
        std::os::unix::fs::symlink(at("home/u/.ssh/keys"), at("keys")).unwrap();
        fs::write(at("home/u/.pgpass"), "").unwrap();
        std::os::unix::fs::symlink(at("home/u/.pgpass"), at("password")).unwrap();
        let mount = |device: &str, of: &str, path: PathBuf| Mount {
            device: device.into(),
            root: of.into(),
            at: path,
        };
        let mounts = Mounts::new(vec![
            mount("1:1", "/", "/".into()),
            mount("1:2", "/data", at("home")),
            mount("1:2", "/data/u", at("copy")),
            mount("1:2", "/data/u/.ssh/keys", at("keys")),
            mount("1:2", "/data/u/other", at("home/u/.ssh/other")),
            mount("1:3", "/data/u", at("elsewhere")),
            mount("1:2", "/data/u/.pgpass", at("password")),
            mount("1:2", "/data", at("covered")),
        ]);
        let find = |path: &str| mounts.aliases(&at(path));
        assert_eq!(find("home/u/.ssh"), [at("copy/.ssh"), at("keys")]);
        assert_eq!(find("home/u/.ssh/keys"), [at("copy/.ssh/keys"), at("keys")]);
        assert_eq!(find("copy/.ssh"), [at("home/u/.ssh"), at("keys")]);
        // A path that does not exist, in a directory that does and in one that does not.
        assert_eq!(find("home/u/.netrc"), [at("copy/.netrc")]);
        assert_eq!(find("home/u/.config/token"), Vec::<PathBuf>::new());
        assert_eq!(find("home/u/other"), [at("copy/other")]);
        assert_eq!(find("home/u/.pgpass"), [at("copy/.pgpass"), at("password")]);
        let all = mounts.with_aliases(vec![at("copy/other"), at("home/u/other")]);
        assert_eq!(all, [at("copy/other"), at("home/u/other")]);
    }
}
