//! Reads the part of `package.json` files that matters for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::HARNESS;
use crate::Error;
use crate::harness::discovery::DiscoveryNote;
use crate::harness::problem::Problem;
use crate::harness::project::{Project, within};

/// Text of the script that `npm init` writes for a package without tests.
const PLACEHOLDER: &str = "no test specified";

/// The part of a `package.json` that matters for tests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Package {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) scripts: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) workspaces: Option<Workspaces>,
    /// Name and version of the package manager, `pnpm@9.1.0`
    /// (<https://nodejs.org/api/corepack.html>).
    #[serde(default, deserialize_with = "or_default")]
    pub(super) package_manager: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    dependencies: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    dev_dependencies: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    peer_dependencies: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    optional_dependencies: BTreeMap<String, Value>,
    /// All other fields, among them settings of tools.
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Workspaces {
    List(Vec<String>),
    Table {
        #[serde(default)]
        packages: Vec<String>,
    },
    /// A value that no package manager accepts.
    Other(serde::de::IgnoredAny),
}

/// Reads a field, or takes its default if it has another type: a package manager ignores it, too.
fn or_default<'de, D: Deserializer<'de>, T: Default + serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

impl Package {
    /// Reads the manifest in a directory.
    ///
    /// # Errors
    /// [`Error::Discover`] or [`Error::Io`] if it cannot be read.
    pub(super) fn read(project: &Project, directory: &Path) -> Result<Self, Error> {
        let manifest = directory.join("package.json");
        let text = project.text(HARNESS, &manifest)?;
        // Like npm, ignores a byte order mark.
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            let (file, line, column) = (Problem::file(&manifest), error.line(), error.column());
            let problem = Problem::Syntax { file, line, column, message };
            project.invalid(HARNESS, &manifest, problem)
        })
    }

    /// Returns the script `test`, unless it is empty or the placeholder of `npm init`.
    pub(super) fn test_script(&self) -> Option<&str> {
        let script = self.scripts.get("test")?.as_str()?;
        (!script.contains(PLACEHOLDER) && !script.trim().is_empty()).then_some(script)
    }

    /// Returns whether the package has a script `test` that is not a test.
    pub(super) fn has_placeholder(&self) -> bool {
        self.scripts.contains_key("test") && self.test_script().is_none()
    }

    /// Returns whether the package itself or a tool that it declares has this name.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.dependencies.contains_key(name) || self.dev_dependencies.contains_key(name)
    }

    /// Returns whether the package needs others that are not in the project.
    pub(super) fn needs_installation(&self, is_member: impl Fn(&str) -> bool) -> bool {
        let installed = self.dependencies.iter().chain(&self.dev_dependencies);
        installed.into_iter().any(|(name, version)| {
            let version = version.as_str().unwrap_or_default();
            let is_local =
                ["file:", "link:", "portal:", "workspace:"].iter().any(|it| version.starts_with(it));
            !is_local && !is_member(name)
        })
    }
}

/// Returns the directories of the packages that each package may be built from, beside its own.
pub(super) fn dependencies(
    packages: &BTreeMap<&Path, Package>,
    notes: &mut Vec<DiscoveryNote>,
) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut names: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (directory, package) in packages {
        names.entry(package.name.as_deref().unwrap_or_default()).or_default().push(directory);
    }
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for (directory, package) in packages {
        let reached = found.entry((*directory).to_owned()).or_default();
        let lists = [
            &package.dependencies,
            &package.dev_dependencies,
            &package.peer_dependencies,
            &package.optional_dependencies,
        ];
        for (name, version) in lists.into_iter().flatten() {
            // A package of that name in this project is what npm links, or at least a safe guess.
            reached.extend(names.get(name.as_str()).into_iter().flatten().map(|it| (*it).to_owned()));
            let version = version.as_str().unwrap_or_default();
            let path = ["file:", "link:", "portal:", "workspace:"]
                .iter()
                .find_map(|kind| version.strip_prefix(kind));
            let path = path.filter(|path| path.starts_with(['.', '/']) && !path.ends_with(".tgz"));
            match path.map(|path| (path, within(directory, path))) {
                None => {}
                Some((_, Some(target))) => reached.push(target),
                Some((path, None)) => notes.push(DiscoveryNote::OutsideDependency {
                    manifest: directory.join("package.json"),
                    directory: path.to_owned(),
                }),
            }
        }
    }
    found
}
