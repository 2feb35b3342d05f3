//! What cargo knows of the workspace: its packages and what each leads to. Knows nothing of what is allowed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use serde_json::Value;

use crate::Result;
use crate::program::{cargo, output_of};

/// The packages of the workspace and everything they are built from.
#[derive(Debug)]
pub(crate) struct Metadata {
    members: Vec<Package>,
    /// Package id to name.
    names: BTreeMap<String, String>,
    /// Package id to the ids it is built from, without what only tests or build scripts need.
    built_from: BTreeMap<String, Vec<String>>,
}

/// A package of the workspace, as its manifest says.
#[derive(Debug)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    /// The folder of its manifest.
    pub(crate) folder: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

/// A line of a manifest's dependencies.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// The package's name, whatever it is renamed to.
    pub(crate) name: String,
    /// The name that features know it by.
    alias: String,
    pub(crate) kind: Kind,
    pub(crate) is_optional: bool,
}

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

impl Metadata {
    /// Asks cargo, with every feature on: what is behind a feature is there all the same.
    pub(crate) fn of_workspace() -> Result<Self> {
        let compiler = output_of(std::process::Command::new("rustc").arg("-vV"))?;
        let host = compiler.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or("`rustc -vV` names no host")?;
        let args =
            ["metadata", "--format-version=1", "--locked", "--all-features", "--filter-platform", host];
        Self::parse(&output_of(&mut cargo(args))?)
    }

    /// Reads the answer of `cargo metadata`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let of_workspace: BTreeSet<&str> = texts(&value["workspace_members"]).collect();
        let mut names = BTreeMap::new();
        let mut members = Vec::new();
        for package in list(&value["packages"]) {
            let (id, name) = (text_of(package, "id")?, text_of(package, "name")?);
            if of_workspace.contains(id.as_str()) {
                members.push(Package::read(package)?);
            }
            names.insert(id, name);
        }
        let mut built_from = BTreeMap::new();
        for node in list(&value["resolve"]["nodes"]) {
            let is_normal = |kind: &Value| kind["kind"].is_null();
            let normal =
                list(&node["deps"]).filter(|dependency| list(&dependency["dep_kinds"]).any(is_normal));
            let ids = normal.map(|dependency| text_of(dependency, "pkg")).collect::<Result<_>>()?;
            built_from.insert(text_of(node, "id")?, ids);
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { members, names, built_from })
    }

    /// The packages of the workspace by name.
    pub(crate) fn members(&self) -> &[Package] {
        &self.members
    }

    /// The first way from a package to any of those wanted, as names, without going through those in `past`.
    pub(crate) fn way_to<'a>(
        &'a self,
        from: &'a Package,
        wanted: &[&str],
        past: &[&str],
    ) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = VecDeque::from([from.id.as_str()]);
        while let Some(id) = next.pop_front() {
            let name = self.name(id);
            if wanted.contains(&name) {
                return Some(self.way_back(id, &came_from));
            }
            if past.contains(&name) {
                continue;
            }
            for dependency in self.built_from.get(id).into_iter().flatten() {
                if dependency != &from.id && !came_from.contains_key(dependency.as_str()) {
                    came_from.insert(dependency, id);
                    next.push_back(dependency);
                }
            }
        }
        None
    }

    fn way_back<'a>(&'a self, to: &'a str, came_from: &BTreeMap<&'a str, &'a str>) -> Vec<&'a str> {
        let mut way = vec![self.name(to)];
        let mut at = to;
        while let Some(before) = came_from.get(at) {
            way.push(self.name(before));
            at = before;
        }
        way.reverse();
        way
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }
}

impl Package {
    fn read(package: &Value) -> Result<Self> {
        let manifest = PathBuf::from(text_of(package, "manifest_path")?);
        let features = package["features"].as_object().into_iter().flatten();
        let features = features.map(|(name, on)| (name.clone(), texts(on).map(str::to_owned).collect()));
        Ok(Self {
            id: text_of(package, "id")?,
            name: text_of(package, "name")?,
            folder: manifest.parent().map(PathBuf::from).unwrap_or_default(),
            dependencies: list(&package["dependencies"]).map(Dependency::read).collect::<Result<_>>()?,
            features: features.collect(),
        })
    }

    /// The optional dependencies that the default features switch on.
    pub(crate) fn on_by_default(&self) -> impl Iterator<Item = &Dependency> {
        let mut on = BTreeSet::new();
        let mut next = vec!["default".to_owned()];
        while let Some(feature) = next.pop() {
            if on.insert(feature.clone()) {
                next.extend(self.features.get(&feature).into_iter().flatten().cloned());
            }
        }
        let names = move |alias: &str| {
            // `x?/feature` alone switches `x` not on.
            on.iter().any(|it| {
                it == alias || it.strip_prefix("dep:") == Some(alias) || it.starts_with(&format!("{alias}/"))
            })
        };
        self.dependencies.iter().filter(move |dependency| dependency.is_optional && names(&dependency.alias))
    }
}

impl Dependency {
    fn read(dependency: &Value) -> Result<Self> {
        let name = text_of(dependency, "name")?;
        Ok(Self {
            alias: dependency["rename"].as_str().unwrap_or(&name).to_owned(),
            name,
            kind: match dependency["kind"].as_str() {
                Some("dev") => Kind::Dev,
                Some("build") => Kind::Build,
                _ => Kind::Normal,
            },
            is_optional: dependency["optional"].as_bool().unwrap_or(false),
        })
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn text_of(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str().map(str::to_owned);
    Ok(text.ok_or_else(|| format!("the answer of `cargo metadata` lacks `{key}` where it is expected"))?)
}
