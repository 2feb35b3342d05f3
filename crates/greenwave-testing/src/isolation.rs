//! What a test gets for itself: a temporary folder, a home, and a range of ports. Knows nothing of commands.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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

/// A test's own folders and ports. Dropping it removes the folders and gives the ports back.
#[derive(Debug)]
pub(crate) struct Isolation {
    folder: TempDir,
    ports: Option<(u16, File)>,
}

impl Isolation {
    /// New folders, and ports that no other test of this user has, as long as there are any.
    pub(crate) fn new(ports: Option<&Path>) -> Result<Self, Error> {
        let failed = || Error::io("make a temporary folder in", std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix("greenwave-test-").tempdir().map_err(failed())?;
        for name in ["home", "tmp"] {
            fs::create_dir(folder.path().join(name)).map_err(failed())?;
        }
        Ok(Self { ports: ports.and_then(lend), folder })
    }

    /// Everything in here is the test's own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The variables that tell a test of it, beside those that it sees anyway.
    pub(crate) fn variables(&self, test: &Test, environment: &Environment) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> =
            vec![("TMPDIR".into(), self.folder.path().join("tmp").into())];
        if !test.env.iter().any(|name| name == "HOME") {
            variables.push(("HOME".into(), self.folder.path().join("home").into()));
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
