//! The variables that tests may see. Knows nothing of where they come from: the caller hands them in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// All variables there are; a test sees those of [`BASE`](Environment::BASE) and those it declares, and
/// whatever it sees is part of its key.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Variables that every test sees: what tool chains cannot do without. Beside them it sees a temporary folder and a home of its own
    /// (`TMPDIR`, `HOME`), a range of ports (`GREENWAVE_PORT_FIRST`, `GREENWAVE_PORT_COUNT`), the directory of results
    /// (`GREENWAVE_OUTER_RESULTS`), and where the tool chains are that
    /// are kept in the user's home (`CARGO_HOME`, `RUSTUP_HOME`, ...); none of these is part of its key.
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

    /// An environment of these variables (`std::env::vars_os()`, say).
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// A variable's value.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.variables.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// What a test that declares these names sees, by name; a variable that is not set is left out.
    pub(crate) fn visible<'a>(&'a self, declared: &'a [String]) -> BTreeMap<&'a str, &'a OsStr> {
        let names = Self::BASE.into_iter().chain(declared.iter().map(String::as_str));
        names.filter_map(|name| Some((name, self.get(name)?))).collect()
    }
}
