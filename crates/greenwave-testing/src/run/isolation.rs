//! Private resources of a test: a temporary directory, a home, and a range of ports.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use greenwave_dir::{Access, Dir, refused};
use parking_lot::Mutex;

use crate::run::environment::TOOL_HOMES_VARIABLE;
use crate::run::go_homes::go_homes;
use crate::run::private_dir::{PrivateDir, remove_abandoned};
use crate::{Environment, Error, Test};

/// First port that is assigned. Well-known services use lower ports; the system assigns ports from
/// [`PORT_END`] on.
const PORT_FIRST: u16 = 20_000;
const PORT_END: u16 = 32_000;
/// Number of ports per test.
const PORTS_EACH: u16 = 16;

/// Toolchain variables with their default locations below the home directory. They are set for
/// tests, whose own home is empty. Those of Go are in [`go_homes`].
const HOMES: [(&str, &str); 15] = [
    ("CARGO_HOME", ".cargo"),
    ("RUSTUP_HOME", ".rustup"),
    ("PYENV_ROOT", ".pyenv"),
    ("NVM_DIR", ".nvm"),
    ("FNM_DIR", ".local/share/fnm"),
    ("VOLTA_HOME", ".volta"),
    ("ASDF_DATA_DIR", ".asdf"),
    ("MISE_DATA_DIR", ".local/share/mise"),
    ("COREPACK_HOME", ".cache/node/corepack"),
    ("PNPM_HOME", ".local/share/pnpm"),
    ("BUN_INSTALL", ".bun"),
    ("PLAYWRIGHT_BROWSERS_PATH", ".cache/ms-playwright"),
    ("PUPPETEER_CACHE_DIR", ".cache/puppeteer"),
    ("NUGET_PACKAGES", ".nuget/packages"),
    ("PYTHONUSERBASE", ".local"),
];

/// Variables with the first port of a test and the number of its ports.
const PORT_VARIABLES: [&str; 2] = ["GREENWAVE_PORT_FIRST", "GREENWAVE_PORT_COUNT"];

/// Subdirectories of the private directory of a test.
const SUBDIRECTORIES: [&str; 2] = ["home", "tmp"];

/// A pool of private directories that earlier tests left unchanged.
///
/// Creating and removing three directories per test takes longer than a small test, since file
/// systems avoid inode numbers that were just freed.
#[derive(Debug, Default)]
pub(crate) struct IsolationPool {
    free: Mutex<Vec<Isolation>>,
    /// Set once directories that killed processes have left were removed.
    clean_up: OnceLock<()>,
}

/// A directory that other users cannot enter, with the identities of itself and its subdirectories.
#[derive(Debug)]
struct OwnDirectory {
    directory: PrivateDir,
    identities: [(u64, u64, u32); 3],
}

/// The private directory and ports of a test. Dropping it removes the directory and releases the
/// ports.
#[derive(Debug)]
pub(crate) struct Isolation {
    own: OwnDirectory,
    ports: Option<(u16, File)>,
}

impl IsolationPool {
    /// Returns an empty directory, and ports that no other test of this user has, if any are free.
    pub(crate) fn lend(&self, ports: Option<&Path>) -> Result<Isolation, Error> {
        if let Some(free) = self.free.lock().pop() {
            return Ok(free);
        }
        let temporary = std::env::temp_dir();
        self.clean_up.get_or_init(|| remove_abandoned(&temporary));
        let own = OwnDirectory::new().map_err(Error::io("create a temporary directory in", temporary))?;
        Ok(Isolation { ports: ports.and_then(lend), own })
    }

    /// Returns the resources of a test whose processes are gone. A directory that the test changed
    /// is removed.
    pub(crate) fn take_back(&self, isolation: Isolation) {
        if isolation.own.is_unchanged() {
            self.free.lock().push(isolation);
        }
    }

    /// Removes the directories in the pool.
    pub(crate) fn remove(&self) {
        self.free.lock().clear();
    }
}

impl OwnDirectory {
    fn new() -> io::Result<Self> {
        let directory = PrivateDir::new()?;
        for name in SUBDIRECTORIES {
            fs::DirBuilder::new().mode(0o700).create(directory.path().join(name))?;
        }
        let identities = identities(directory.path())?;
        Ok(Self { directory, identities })
    }

    fn is_unchanged(&self) -> bool {
        let path = self.directory.path();
        let names = |path: &Path| -> io::Result<usize> {
            fs::read_dir(path)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
        };
        let is_empty = |name: &&str| names(&path.join(name)).is_ok_and(|count| count == 0);
        identities(path).is_ok_and(|now| now == self.identities)
            && names(path).is_ok_and(|count| count == SUBDIRECTORIES.len())
            && SUBDIRECTORIES.iter().all(is_empty)
    }
}

/// Returns device, inode and mode of a directory and its subdirectories.
fn identities(directory: &Path) -> io::Result<[(u64, u64, u32); 3]> {
    let of = |path: &Path| fs::symlink_metadata(path).map(|it| (it.dev(), it.ino(), it.mode()));
    Ok([of(directory)?, of(&directory.join(SUBDIRECTORIES[0]))?, of(&directory.join(SUBDIRECTORIES[1]))?])
}

impl Isolation {
    /// Returns the private directory.
    pub(crate) fn directory(&self) -> &Path {
        self.own.directory.path()
    }

    /// Returns the variables that point a test to its resources, and to the `shared` directories of
    /// its harness.
    pub(crate) fn variables(
        &self,
        test: &Test,
        environment: &Environment,
        shared: Vec<(&'static str, PathBuf)>,
    ) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> =
            vec![("TMPDIR".into(), self.directory().join("tmp").into())];
        let has_own_home = !test.env.iter().any(|name| name == "HOME");
        if has_own_home {
            variables.push(("HOME".into(), self.directory().join("home").into()));
        }
        let mut homes: Vec<(&str, PathBuf)> = Vec::new();
        for home in tool_homes(environment).chain(shared) {
            let is_hidden = has_own_home || environment.get(home.0).is_some();
            if is_hidden && !homes.contains(&home) {
                homes.push(home);
            }
        }
        if !homes.is_empty() {
            let names: Vec<&str> = homes.iter().map(|(name, _)| *name).collect();
            variables.push((TOOL_HOMES_VARIABLE.into(), names.join(",").into()));
        }
        variables.extend(homes.into_iter().map(|(name, path)| (name.into(), path.into())));
        if let Some((first, _)) = &self.ports {
            let values = [first.to_string(), PORTS_EACH.to_string()];
            variables
                .extend(PORT_VARIABLES.iter().zip(values).map(|(name, value)| (name.into(), value.into())));
        }
        variables
    }
}

/// Returns toolchain variables with their values: the user's, unless tests see them already; those
/// of an outer run; and default locations that exist.
pub(crate) fn tool_homes(environment: &Environment) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
    let home = environment.get("HOME").map(Path::new);
    let homes = HOMES.into_iter().filter_map(move |(name, directory)| {
        if environment.is_set_by_outer(name) {
            return Some((name, PathBuf::from(environment.get(name)?)));
        }
        if let Some(set) = environment.get(name) {
            let is_hidden = !set.is_empty() && !Environment::BASE.contains(&name);
            return is_hidden.then(|| (name, PathBuf::from(set)));
        }
        let path = home?.join(directory);
        path.is_dir().then_some((name, path))
    });
    homes.chain(go_homes(environment).into_iter().filter(|(_, path)| path.exists()))
}

/// Returns the home of cargo, which holds downloaded packages.
pub(crate) fn cargo_home(environment: &Environment) -> Option<PathBuf> {
    let set = environment.get("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(Path::new(environment.get(OsStr::new("HOME"))?).join(".cargo")))
}

/// Locks the file of a free range of ports. The files are never removed, because a process that
/// removes one could remove a lock that another process has just taken.
fn lend(directory: &Path) -> Option<(u16, File)> {
    let directory = Dir::create(directory, 0o700).ok()?;
    for first in (PORT_FIRST..PORT_END).step_by(usize::from(PORTS_EACH)) {
        let file = match directory.open_file(first.to_string(), Access::Create, 0o600) {
            Ok(file) => file,
            // Tests may write to the directory. Another range of ports does as well.
            Err(error) if refused(&error).is_some() => continue,
            Err(_) => return None,
        };
        match file.try_lock() {
            Ok(()) => return Some((first, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}
