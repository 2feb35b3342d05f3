//! The environment variables that tests can see. The caller passes them in; this crate reads none.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Output, Stdio};

use greenwave_process::{Child, Spawn, Supervisor};
use tokio::process::Command;

/// Environment variable that lists the toolchain locations that a run has set for its tests, so
/// that a run inside a test can distinguish them from the user's own.
pub const TOOL_HOMES_VARIABLE: &str = "GREENWAVE_OUTER_TOOL_HOMES";

/// The environment of tests: the variables that they select from, and the supervisor of their
/// processes. A test sees the variables of [`BASE`](Environment::BASE)
/// and those that it declares, and all of these are part of its key.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    supervisor: Option<Supervisor>,
    is_inspecting: bool,
}

impl Environment {
    /// Variables that every test sees, because toolchains need them.
    ///
    /// In addition each test gets a private temporary directory and home (`TMPDIR`, `HOME`), a
    /// range of ports (`GREENWAVE_PORT_FIRST`, `GREENWAVE_PORT_COUNT`), the cache directory
    /// (`GREENWAVE_OUTER_RESULTS`), and the locations of toolchains in the user's home
    /// (`CARGO_HOME`, `RUSTUP_HOME`, …). These are not part of its key.
    pub const BASE: [&str; 12] = [
        "PATH",
        "LANG",
        "LC_ALL",
        "TZ",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "RUSTFLAGS",
        "GOPATH",
        "GOROOT",
        "JAVA_HOME",
        "VIRTUAL_ENV",
    ];

    /// Creates an environment from variables such as those of `std::env::vars_os()`.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect(), supervisor: None, is_inspecting: false }
    }

    /// Has a supervisor start tests and the programs that discover and build them, so that nothing
    /// of them is left when a test or this process ends.
    #[must_use]
    pub fn supervised_by(self, supervisor: Supervisor) -> Self {
        Self { supervisor: Some(supervisor), ..self }
    }

    /// Has discovery and lookups start no program that the project provides or configures. What
    /// cannot be known without one counts as missing.
    #[must_use]
    pub fn inspecting(self) -> Self {
        Self { is_inspecting: true, ..self }
    }

    /// Returns whether no program of the project may be started.
    pub(crate) fn is_inspecting(&self) -> bool {
        self.is_inspecting
    }

    /// Returns the supervisor of processes, if there is one.
    pub fn supervisor(&self) -> Option<&Supervisor> {
        self.supervisor.as_ref()
    }

    /// Runs a command whose variables were cleared to its end, under the supervisor if there is
    /// one. Captures its output and its errors; its standard input is empty.
    pub(crate) async fn output(&self, command: &mut Command) -> io::Result<Output> {
        if self.supervisor.is_none() {
            return command.stdin(Stdio::null()).output().await;
        }
        let spawn = Spawn::from_command(command.as_std(), [])?;
        Child::output_of(self.supervisor.as_ref(), spawn).await
    }

    /// Returns the value of a variable.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.variables.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// Returns the names and values of all variables that are UTF-8.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
    }

    /// Returns the variables that a test with these declared names sees. Omitted are unset
    /// variables, and locations of toolchains that an outer run has set: these are not part of its
    /// key either, so that both runs derive the same keys.
    pub(crate) fn visible<'a>(&'a self, declared: &'a [String]) -> BTreeMap<&'a str, &'a OsStr> {
        let base = Self::BASE.into_iter().filter(|name| !self.is_set_by_outer(name));
        let names = base.chain(declared.iter().map(String::as_str));
        names.filter_map(|name| Some((name, self.get(name)?))).collect()
    }

    /// Returns whether an outer run has set this location of a toolchain for its tests.
    pub(crate) fn is_set_by_outer(&self, name: &str) -> bool {
        let set = self.get(TOOL_HOMES_VARIABLE).and_then(OsStr::to_str);
        set.is_some_and(|set| set.split(',').any(|other| other == name))
    }
}
