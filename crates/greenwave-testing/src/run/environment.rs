//! The environment variables that tests can see. The caller passes them in; this crate reads none.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use greenwave_process::{BeforeExec, Child, Spawn, Supervisor};
use greenwave_sandbox::{LazyGuard, PreparedGuard, Sandbox};
use tokio::process::Command;

use crate::run::private_dir::PrivateDir;

/// Environment variable that lists the toolchain locations that a run has set for its tests, so
/// that a run inside a test can distinguish them from the user's own.
pub const TOOL_HOMES_VARIABLE: &str = "GREENWAVE_OUTER_TOOL_HOMES";

/// Matches any characters in the name of a declared variable.
const WILDCARD: char = '*';

/// Returns whether each test has a value of its own for a variable, so that a pattern does not
/// select the user's. npm sets some for each script, and a run may be started by a script.
fn is_private(name: &str) -> bool {
    let is_set_by_npm = || {
        let setting = name.strip_prefix("npm_config_");
        setting.is_some_and(|it| matches!(it, "local_prefix" | "user_agent" | "npm_version" | "node_gyp"))
    };
    matches!(name, "HOME" | "TMPDIR") || name.starts_with("GREENWAVE_") || is_set_by_npm()
}

/// Returns whether a pattern matches a whole name.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once(WILDCARD) else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once(WILDCARD).unwrap_or(("", rest));
    for part in middle.split(WILDCARD) {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

/// The environment of tests: the variables that they select from, and the supervisor of their
/// processes. A test sees the variables of [`BASE`](Environment::BASE)
/// and those that it declares, and all of these are part of its key.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    supervisor: Option<Supervisor>,
    sandbox: Option<Sandbox>,
    /// The directories in which programs are searched, if no program of the project may be started.
    inspecting: Option<OsString>,
    guard: Option<Arc<LazyGuard>>,
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
        let variables = variables.into_iter().collect();
        Self { variables, supervisor: None, sandbox: None, inspecting: None, guard: None }
    }

    /// Has a supervisor start tests and the programs that discover and build them, so that nothing
    /// of them is left when a test or this process ends.
    #[must_use]
    pub fn supervised_by(self, supervisor: Supervisor) -> Self {
        Self { supervisor: Some(supervisor), ..self }
    }

    /// Has a guard hold for the programs that run code of the project to build it or to list its
    /// tests. Where the kernel cannot enforce it, they run without.
    #[must_use]
    pub fn guarded_by(self, guard: Option<Arc<LazyGuard>>) -> Self {
        Self { guard, ..self }
    }

    /// Returns the guard, if there is one.
    pub fn guard(&self) -> Option<&Arc<LazyGuard>> {
        self.guard.as_ref()
    }

    /// Has discovery and lookups start no program that the project provides or configures. What
    /// cannot be known without one counts as missing.
    ///
    /// Programs such as cargo and go are searched in `path` instead of `PATH`, which may have
    /// directories of the project. Tests keep theirs, also in their keys.
    #[must_use]
    pub fn inspecting(self, path: OsString) -> Self {
        Self { inspecting: Some(path), ..self }
    }

    /// Returns whether no program of the project may be started.
    pub(crate) fn is_inspecting(&self) -> bool {
        self.inspecting.is_some()
    }

    /// Returns the directories in which programs that list tests are searched.
    pub(crate) fn search_path(&self) -> Option<&OsStr> {
        self.inspecting.as_deref().or_else(|| self.get("PATH"))
    }

    /// Returns whether programs are searched in other directories than those that tests see.
    pub(crate) fn has_other_programs(&self) -> bool {
        self.search_path() != self.get("PATH")
    }

    /// Returns the supervisor of processes, if there is one.
    pub fn supervisor(&self) -> Option<&Supervisor> {
        self.supervisor.as_ref()
    }

    /// Confines tests, and the programs that discover and build them. They can write to the project
    /// and to private directories in addition to what the sandbox permits.
    #[must_use]
    pub fn confined_by(self, sandbox: Option<Sandbox>) -> Self {
        Self { sandbox, ..self }
    }

    /// Runs a command whose variables were cleared to its end, under the supervisor if there is
    /// one. Captures its output and its errors; its standard input is empty. If tests are confined,
    /// it can write to its working directory and has a temporary directory.
    pub(crate) async fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.output_under(command, None).await
    }

    /// Runs a command that executes code of the project like [`output`](Self::output), under the
    /// guard if there is one.
    pub(crate) async fn guarded_output(&self, command: &mut Command) -> io::Result<Output> {
        let guard = self.guard.as_ref().and_then(|guard| guard.get().ok());
        self.output_under(command, guard).await
    }

    async fn output_under(&self, command: &mut Command, guard: Option<&PreparedGuard>) -> io::Result<Output> {
        let temporary = match &self.sandbox {
            Some(_) => Some(PrivateDir::new()?),
            None => None,
        };
        command.envs(temporary.iter().map(|directory| ("TMPDIR", directory.path())));
        command.envs(self.inspecting.iter().map(|path| ("PATH", path)));
        let directory = command.as_std().get_current_dir().map(Path::to_owned);
        let writable = temporary.iter().map(PrivateDir::path).chain(directory.as_deref());
        let writable: Vec<PathBuf> = writable.map(Path::to_owned).collect();
        let directory = directory.unwrap_or_else(|| PathBuf::from("/"));
        // The process leads a group, which is killed if the future is dropped.
        let mut spawn = Spawn::from_command(command.as_std(), [])?;
        self.confine(&mut spawn, &directory, writable)?;
        if let Some(guard) = guard {
            guard.attach(&mut spawn, &directory).map_err(io::Error::other)?;
        }
        let mut output = Child::output_of(self.supervisor.as_ref(), spawn).await?;
        for stream in [&mut output.stdout, &mut output.stderr] {
            *stream = self.with_own_paths(std::mem::take(stream), &directory);
        }
        Ok(output)
    }

    /// Returns the path at which a command that works in `directory` sees a path.
    pub(crate) fn place_of(&self, directory: &Path, path: &Path) -> Option<PathBuf> {
        self.sandbox.as_ref()?.place_of(directory, path)
    }

    /// Returns the output of a command that worked in `directory`, with the paths that files in
    /// there have for this process.
    pub(crate) fn with_own_paths(&self, output: Vec<u8>, directory: &Path) -> Vec<u8> {
        let Some(place) = self.place_of(directory, directory) else { return output };
        // The shown directory may be above this one.
        let (mut place, mut own) = (place.as_path(), directory);
        while let (Some(of_place), Some(of_own)) = (place.parent(), own.parent())
            && self.place_of(directory, of_own).as_deref() == Some(of_place)
        {
            (place, own) = (of_place, of_own);
        }
        // Programs that work there report their directory without symbolic links.
        let own = own.canonicalize().unwrap_or_else(|_| own.to_owned());
        let (place, own) = (place.as_os_str().as_bytes(), own.as_os_str().as_bytes());
        let (mut replaced, mut from) = (Vec::new(), 0);
        for at in memchr::memmem::find_iter(&output, place) {
            replaced.extend_from_slice(&output[from..at]);
            replaced.extend_from_slice(own);
            from = at + place.len();
        }
        if from == 0 {
            return output;
        }
        replaced.extend_from_slice(&output[from..]);
        replaced
    }

    /// Confines a command that asks a program for its version, if tests are confined. It sees its
    /// directory at its own path only.
    pub(crate) fn confine_probe(
        &self,
        command: &mut impl BeforeExec,
        directory: &Path,
        writable: Vec<PathBuf>,
    ) -> io::Result<()> {
        let Some(sandbox) = &self.sandbox else { return Ok(()) };
        sandbox.without_place().attach(command, directory, writable).map_err(io::Error::other)
    }

    /// Confines a command if tests are confined. It can write to these paths in addition.
    pub(crate) fn confine(
        &self,
        command: &mut impl BeforeExec,
        directory: &Path,
        writable: Vec<PathBuf>,
    ) -> io::Result<()> {
        let Some(sandbox) = &self.sandbox else { return Ok(()) };
        sandbox.attach(command, directory, writable).map_err(io::Error::other)
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
        let (patterns, names): (Vec<&str>, Vec<&str>) =
            declared.iter().map(String::as_str).partition(|name| name.contains(WILDCARD));
        let mut visible: BTreeMap<&str, &OsStr> =
            base.chain(names).filter_map(|name| Some((name, self.get(name)?))).collect();
        if !patterns.is_empty() {
            let all =
                self.variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())));
            visible.extend(all.filter(|(name, _)| {
                !self.is_set_by_outer(name)
                    && !is_private(name)
                    && patterns.iter().any(|pattern| matches_pattern(pattern, name))
            }));
        }
        visible
    }

    /// Returns whether an outer run has set this location of a toolchain for its tests.
    pub(crate) fn is_set_by_outer(&self, name: &str) -> bool {
        let set = self.get(TOOL_HOMES_VARIABLE).and_then(OsStr::to_str);
        set.is_some_and(|set| set.split(',').any(|other| other == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_selects_variables_by_name() {
        let names = ["APP_A", "APP_B_URL", "APP", "XAPP_A", "HOME", "GREENWAVE_PORT_FIRST"];
        let environment = Environment::new(names.map(|name| (name.into(), "1".into())));
        let visible = |pattern: &str| {
            let declared = [pattern.to_owned()];
            environment.visible(&declared).into_keys().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(visible("APP_*"), ["APP_A", "APP_B_URL"]);
        assert_eq!(visible("APP_*_URL"), ["APP_B_URL"]);
        assert_eq!(visible("*APP*A"), ["APP_A", "XAPP_A"]);
        assert_eq!(visible("*"), ["APP", "APP_A", "APP_B_URL", "XAPP_A"]);
        assert_eq!(visible("APP_A*A"), Vec::<String>::new());
        assert_eq!(visible("APP"), ["APP"]);
    }
}
