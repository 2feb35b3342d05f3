//! Reads cargo's configuration files, as far as they determine how tests are run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cargo_platform::{Cfg, Platform};
use greenwave_dir::read_regular_text;
use toml::{Table, Value};

use crate::Environment;
use crate::harness::project::MANIFEST_BYTES_MAX;

/// Names of the configuration file in a directory. Cargo reads the first one that exists.
const NAMES: [&str; 2] = ["config", "config.toml"];
/// Maximum depth of files that include each other.
const INCLUDES_MAX: usize = 16;

/// cargo's configuration of a directory
/// (<https://doc.rust-lang.org/cargo/reference/config.html#hierarchical-structure>).
#[derive(Debug, Default)]
pub(super) struct CargoConfig {
    /// Files, from the highest precedence to the lowest.
    files: Vec<ConfigFile>,
}

#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    /// Directory that relative paths in the file refer to.
    base: PathBuf,
    table: Table,
}

/// A variable that cargo sets for the programs that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigVariable {
    pub(super) value: OsString,
    /// Whether it replaces a variable of the user.
    pub(super) force: bool,
}

impl CargoConfig {
    /// Reads the files of a directory, of its parents, and of cargo's home. A file that cannot be
    /// parsed is skipped, since cargo itself reports it.
    pub(super) fn read(directory: &Path, home: Option<&Path>) -> Self {
        let mut config = Self::default();
        let mut directories: Vec<PathBuf> = directory.ancestors().map(|it| it.join(".cargo")).collect();
        let home = home.map(Path::to_owned).filter(|home| !directories.contains(home));
        directories.extend(home);
        for directory in directories {
            if let Some(file) = NAMES.map(|name| directory.join(name)).into_iter().find(|it| it.is_file()) {
                config.add(&file, 0);
            }
        }
        config
    }

    /// Returns the paths of the files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Appends a file, and then the files that it includes. A later one has precedence.
    fn add(&mut self, file: &Path, depth: usize) {
        let text = read_regular_text(file, MANIFEST_BYTES_MAX).unwrap_or_default();
        let (Ok(table), Some(directory)) = (text.parse::<Table>(), file.parent()) else { return };
        let base = directory.parent().unwrap_or(directory).to_owned();
        let included = included(table.get("include"));
        self.files.push(ConfigFile { path: file.to_owned(), base, table });
        for path in included.iter().rev().filter(|_| depth < INCLUDES_MAX) {
            self.add(&directory.join(path), depth + 1);
        }
    }

    /// Returns the variables of `[env]`
    /// (<https://doc.rust-lang.org/cargo/reference/config.html#env>).
    pub(super) fn variables(&self) -> BTreeMap<String, ConfigVariable> {
        let mut variables = BTreeMap::new();
        for ConfigFile { base, table, .. } in &self.files {
            for (name, value) in table.get("env").and_then(Value::as_table).into_iter().flatten() {
                let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
                let Some(text) = value.as_str().or_else(|| value.get("value")?.as_str()) else { continue };
                let value = if flag("relative") { base.join(text).into() } else { text.into() };
                let variable = ConfigVariable { value, force: flag("force") };
                variables.entry(name.clone()).or_insert(variable);
            }
        }
        variables
    }

    /// Returns the target that cargo builds for unless it is the host, as `build.target` names it.
    pub(super) fn target(&self, environment: &Environment) -> Option<String> {
        let set = environment.get("CARGO_BUILD_TARGET").and_then(|it| it.to_str()).map(str::to_owned);
        let configured = || match self.find("build", "target")?.0 {
            Value::Array(targets) => targets.first()?.as_str().map(str::to_owned),
            value => value.as_str().map(str::to_owned),
        };
        set.or_else(configured)
    }

    /// Returns the program that cargo runs in place of `rustdoc`.
    pub(super) fn rustdoc(&self) -> Option<PathBuf> {
        let (value, base) = self.find("build", "rustdoc")?;
        Some(program(base, value.as_str()?))
    }

    /// Returns the command that cargo runs programs of a target with
    /// (<https://doc.rust-lang.org/cargo/reference/config.html#targettriplerunner>).
    pub(super) fn runner(&self, triple: &str, cfgs: &[Cfg], environment: &Environment) -> Vec<OsString> {
        let name: String = triple.to_uppercase().replace(['-', '.'], "_");
        if let Some(set) = environment.get(format!("CARGO_TARGET_{name}_RUNNER")).and_then(|it| it.to_str()) {
            return set.split_whitespace().map(OsString::from).collect();
        }
        let of_key = |of_triple: bool| {
            self.files.iter().find_map(|ConfigFile { base, table, .. }| {
                let targets = table.get("target")?.as_table()?;
                let applies = |key: &&String| {
                    if of_triple { key.as_str() == triple } else { is_cfg(key, triple, cfgs) }
                };
                let runners = targets.iter().filter(|(key, _)| applies(key));
                runners.filter_map(|(_, target)| words(target.get("runner")?, base)).next()
            })
        };
        of_key(true).or_else(|| of_key(false)).unwrap_or_default()
    }

    /// Returns a value of a table, and the directory that relative paths in it refer to.
    fn find(&self, table: &str, key: &str) -> Option<(&Value, &Path)> {
        self.files.iter().find_map(|file| Some((file.table.get(table)?.get(key)?, file.base.as_path())))
    }
}

/// Returns the paths in an `include` key.
fn included(value: Option<&Value>) -> Vec<PathBuf> {
    let path = |value: &Value| Some(PathBuf::from(value.as_str().or_else(|| value.get("path")?.as_str())?));
    match value {
        Some(Value::Array(values)) => values.iter().filter_map(path).collect(),
        Some(value) => path(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Returns whether a key of `[target]` is an expression that the target matches.
fn is_cfg(key: &str, triple: &str, cfgs: &[Cfg]) -> bool {
    key.starts_with("cfg(") && Platform::from_str(key).is_ok_and(|platform| platform.matches(triple, cfgs))
}

/// Returns the words of a command, as a string or a list.
fn words(value: &Value, base: &Path) -> Option<Vec<OsString>> {
    let words: Vec<&str> = match value {
        Value::Array(words) => words.iter().map(Value::as_str).collect::<Option<_>>()?,
        value => value.as_str()?.split_whitespace().collect(),
    };
    let (first, rest) = words.split_first()?;
    Some([program(base, first).into()].into_iter().chain(rest.iter().map(OsString::from)).collect())
}

/// Resolves the name of a program: a path is relative to the configuration's directory, and a plain
/// name is searched on the PATH.
fn program(base: &Path, name: &str) -> PathBuf {
    if name.contains('/') { base.join(name) } else { PathBuf::from(name) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TRIPLE: &str = "x86_64-unknown-linux-gnu";

    fn config(files: &[(&str, &str)]) -> (tempfile::TempDir, CargoConfig) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let config = CargoConfig::read(&directory.path().join("a/b"), Some(&directory.path().join("home")));
        (directory, config)
    }

    #[test]
    fn inner_files_override_outer_ones() {
        let (directory, config) = config(&[
            ("a/b/.cargo/config.toml", "include = \"more.toml\"\n[env]\nX = \"inner\"\n"),
            (
                "a/b/.cargo/more.toml",
                "[env]\nX = \"no\"\nY = { value = \"p/q\", relative = true, force = true }\n",
            ),
            ("a/.cargo/config.toml", "[env]\nX = \"outer\"\nZ = \"z\"\n[build]\ntarget = [\"t\"]\n"),
            ("home/config.toml", "[env]\nZ = \"no\"\nH = { value = \"h\" }\n[build]\ntarget = \"no\"\n"),
            (".cargo/config.toml", "not TOML"),
        ]);
        let variables = config.variables();
        let of = |name: &str| (variables[name].value.clone(), variables[name].force);
        assert_eq!(
            (of("X"), of("Z"), of("H")),
            (("inner".into(), false), ("z".into(), false), ("h".into(), false))
        );
        assert_eq!(of("Y"), (directory.path().join("a/b/p/q").into(), true));
        assert_eq!(config.target(&Environment::default()).as_deref(), Some("t"));
        let set = Environment::new([("CARGO_BUILD_TARGET".into(), "u".into())]);
        assert_eq!(config.target(&set).as_deref(), Some("u"));
    }

    #[test]
    fn a_runner_is_selected_by_target() {
        let unix = [Cfg::Name(cargo_platform::Ident { name: "unix".to_owned(), raw: false })];
        let runner = |text: &str, environment: &Environment| {
            let (directory, config) = config(&[("a/.cargo/config.toml", text)]);
            let words = config.runner(TRIPLE, &unix, environment).into_iter();
            let root = directory.path().display().to_string();
            words.map(|word| word.to_string_lossy().replace(&root, "ROOT")).collect::<Vec<_>>()
        };
        let none = Environment::default();
        let by_cfg = "[target.'cfg(unix)']\nrunner = \"wrap -a\"\n";
        assert_eq!(runner(by_cfg, &none), ["wrap", "-a"]);
        let by_triple = format!("{by_cfg}[target.{TRIPLE}]\nrunner = [\"tools/w x\", \"-b c\"]\n");
        assert_eq!(runner(&by_triple, &none), ["ROOT/a/tools/w x", "-b c"]);
        let set = [("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER".into(), "mine -c".into())];
        assert_eq!(runner(&by_triple, &Environment::new(set)), ["mine", "-c"]);
        assert!(
            runner("[target.'cfg(windows)']\nrunner = \"w\"\n[target.wasm]\nrunner = \"v\"\n", &none)
                .is_empty()
        );
    }
}
