//! What a test gets for itself: a temporary folder, a home, and a range of ports. Knows nothing of commands.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{Environment, Error, Test};

/// The first port that is lent. Below are those of known services, and above [`PORT_END`] those that the system gives out itself.
const PORT_FIRST: u16 = 20_000;
const PORT_END: u16 = 32_000;
/// Ports that a test gets.
const PORTS_EACH: u16 = 16;

/// Tool chains that live in the home folder unless a variable says otherwise: a test with a home of its own finds them all the same.
const HOMES: [(&str, &str); 7] = [
    ("CARGO_HOME", ".cargo"),
    ("RUSTUP_HOME", ".rustup"),
    ("PYENV_ROOT", ".pyenv"),
    ("NVM_DIR", ".nvm"),
    ("GOPATH", "go"),
    ("GOCACHE", ".cache/go-build"),
    ("PYTHONUSERBASE", ".local"),
];

/// The variable by which a test learns its first port, and that with how many there are.
const PORT_VARIABLES: [&str; 2] = ["GREENWAVE_PORT_FIRST", "GREENWAVE_PORT_COUNT"];

/// The folders in a test's own folder.
const FOLDERS: [&str; 2] = ["home", "tmp"];

/// IsolationPool that tests have had and left as they were. Making and removing three for each test takes longer than a small test does: file systems
/// avoid the numbers of what was just removed, and look for others.
#[derive(Debug, Default)]
pub(crate) struct IsolationPool {
    free: Mutex<Vec<Isolation>>,
}

/// A test's own folder, and what identifies it and those in it.
#[derive(Debug)]
struct Own {
    folder: TempDir,
    identities: [(u64, u64, u32); 3],
}

/// A test's own folders and ports. Dropping it removes the folders and gives the ports back.
#[derive(Debug)]
pub(crate) struct Isolation {
    own: Own,
    ports: Option<(u16, File)>,
}

impl IsolationPool {
    /// Empty folders, and ports that no other test of this user has, as long as there are any.
    pub(crate) fn lend(&self, ports: Option<&Path>) -> Result<Isolation, Error> {
        if let Some(free) = self.free.lock().pop() {
            return Ok(free);
        }
        let own = Own::new().map_err(Error::io("make a temporary folder in", std::env::temp_dir()))?;
        Ok(Isolation { ports: ports.and_then(lend), own })
    }

    /// Takes back what a test has had of which nothing is running any more. Unless it is just as it was, it is removed.
    pub(crate) fn take_back(&self, isolation: Isolation) {
        if isolation.own.is_as_it_was() {
            self.free.lock().push(isolation);
        }
    }

    /// Removes those that nobody has.
    pub(crate) fn remove(&self) {
        self.free.lock().clear();
    }
}

impl Own {
    fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("greenwave-test-").tempdir()?;
        for name in FOLDERS {
            fs::create_dir(folder.path().join(name))?;
        }
        let identities = identities(folder.path())?;
        Ok(Self { folder, identities })
    }

    fn is_as_it_was(&self) -> bool {
        let path = self.folder.path();
        let names = |path: &Path| -> io::Result<usize> {
            fs::read_dir(path)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
        };
        let is_empty = |name: &&str| names(&path.join(name)).is_ok_and(|count| count == 0);
        identities(path).is_ok_and(|now| now == self.identities)
            && names(path).is_ok_and(|count| count == FOLDERS.len())
            && FOLDERS.iter().all(is_empty)
    }
}

/// Of a folder and those in it: which they are, and who may do what with them.
fn identities(folder: &Path) -> io::Result<[(u64, u64, u32); 3]> {
    let of = |path: &Path| fs::symlink_metadata(path).map(|it| (it.dev(), it.ino(), it.mode()));
    Ok([of(folder)?, of(&folder.join(FOLDERS[0]))?, of(&folder.join(FOLDERS[1]))?])
}

impl Isolation {
    /// Everything in here is the test's own.
    pub(crate) fn folder(&self) -> &Path {
        self.own.folder.path()
    }

    /// The variables that tell a test of it, beside those that it sees anyway.
    pub(crate) fn variables(&self, test: &Test, environment: &Environment) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> =
            vec![("TMPDIR".into(), self.folder().join("tmp").into())];
        if !test.env.iter().any(|name| name == "HOME") {
            variables.push(("HOME".into(), self.folder().join("home").into()));
            variables.extend(tool_homes(environment).map(|(name, path)| (name.into(), path.into())));
        }
        if let Some((first, _)) = &self.ports {
            let values = [first.to_string(), PORTS_EACH.to_string()];
            variables
                .extend(PORT_VARIABLES.iter().zip(values).map(|(name, value)| (name.into(), value.into())));
        }
        variables
    }
}

/// Where tool chains are that are told by no variable.
pub(crate) fn tool_homes(environment: &Environment) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
    let home = environment.get("HOME").map(Path::new);
    HOMES.into_iter().filter_map(move |(name, folder)| {
        let path = home?.join(folder);
        (environment.get(name).is_none() && path.is_dir()).then_some((name, path))
    })
}

/// Where cargo keeps what it has fetched.
pub(crate) fn cargo_home(environment: &Environment) -> Option<PathBuf> {
    let told = environment.get("CARGO_HOME").map(PathBuf::from);
    told.or_else(|| Some(Path::new(environment.get(OsStr::new("HOME"))?).join(".cargo")))
}

/// Where Go keeps what it has fetched and compiled, each under a hash of what it was made from.
pub(crate) fn go_caches(environment: &Environment) -> Vec<PathBuf> {
    let home = environment.get("HOME").map(Path::new);
    let compiled =
        environment.get("GOCACHE").map(PathBuf::from).or(home.map(|home| home.join(".cache/go-build")));
    let path = environment.get("GOPATH").map(PathBuf::from).or(home.map(|home| home.join("go")));
    compiled.into_iter().chain(path.map(|path| path.join("pkg"))).collect()
}

/// A range of ports whose file nobody has locked. Files are not removed: whoever did could remove a lock that another has just taken.
fn lend(folder: &Path) -> Option<(u16, File)> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).ok()?;
    for first in (PORT_FIRST..PORT_END).step_by(usize::from(PORTS_EACH)) {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(first.to_string()))
            .ok()?;
        match file.try_lock() {
            Ok(()) => return Some((first, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}
