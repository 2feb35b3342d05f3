//! Loads the workspace's dependency graph from `cargo metadata` and searches it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use cargo_metadata::{CargoOpt, Dependency, DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::Result;
use crate::process::{host, root};

/// The packages of the workspace and the graph of what each is built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    metadata: Metadata,
    /// Normal dependencies of each package, without build and dev-dependencies.
    edges: BTreeMap<PackageId, Vec<PackageId>>,
}

impl Workspace {
    /// Runs `cargo metadata` with all features enabled, so that optional dependencies are part of
    /// the graph.
    ///
    /// # Errors
    /// If rustc or cargo fails, for example because `Cargo.lock` is out of date.
    pub(crate) fn load() -> Result<Self> {
        let host = host()?;
        let mut command = MetadataCommand::new();
        command.current_dir(root()).features(CargoOpt::AllFeatures);
        command.other_options(["--locked", "--filter-platform", &host].map(str::to_owned));
        Ok(Self::new(command.exec()?))
    }

    pub(crate) fn new(metadata: Metadata) -> Self {
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let edges = nodes.map(|node| {
            let is_normal = |dependency: &&cargo_metadata::NodeDep| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            };
            let normal = node.deps.iter().filter(is_normal).map(|dependency| dependency.pkg.clone());
            (node.id.clone(), normal.collect())
        });
        let edges = edges.collect();
        Self { metadata, edges }
    }

    /// Returns the members of the workspace, sorted by name.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members = self.metadata.workspace_packages();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Returns the names of the members that cargo builds if none is named.
    pub(crate) fn default_members(&self) -> Vec<&str> {
        self.metadata.workspace_default_packages().into_iter().map(|package| package.name.as_str()).collect()
    }

    /// Returns the shortest dependency path from a package to one of the `wanted` packages, as
    /// package names.
    ///
    /// The search does not continue through packages in `boundaries`.
    pub(crate) fn path_to<'a>(
        &'a self,
        from: &'a Package,
        wanted: &[&str],
        boundaries: &[&str],
    ) -> Option<Vec<&'a str>> {
        let mut came_from: BTreeMap<&PackageId, &PackageId> = BTreeMap::new();
        let mut queue = VecDeque::from([&from.id]);
        while let Some(id) = queue.pop_front() {
            let name = self.name(id);
            if wanted.contains(&name) {
                return Some(self.trace_back(id, &came_from));
            }
            if boundaries.contains(&name) {
                continue;
            }
            for dependency in self.edges.get(id).into_iter().flatten() {
                if *dependency != from.id && !came_from.contains_key(dependency) {
                    came_from.insert(dependency, id);
                    queue.push_back(dependency);
                }
            }
        }
        None
    }

    fn trace_back<'a>(
        &'a self,
        to: &'a PackageId,
        came_from: &BTreeMap<&'a PackageId, &'a PackageId>,
    ) -> Vec<&'a str> {
        let mut path = vec![self.name(to)];
        let mut at = to;
        while let Some(before) = came_from.get(at) {
            path.push(self.name(before));
            at = before;
        }
        path.reverse();
        path
    }

    fn name<'a>(&'a self, id: &'a PackageId) -> &'a str {
        let package = self.metadata.packages.iter().find(|package| package.id == *id);
        package.map_or(id.repr.as_str(), |package| package.name.as_str())
    }
}

/// Returns the directory of a package's manifest.
pub(crate) fn directory(package: &Package) -> &Path {
    package.manifest_path.parent().map_or(Path::new(""), |directory| directory.as_std_path())
}

/// Returns the optional dependencies that the default features enable.
pub(crate) fn enabled_by_default(package: &Package) -> impl Iterator<Item = &Dependency> {
    let mut enabled = BTreeSet::new();
    let mut queue = vec!["default".to_owned()];
    while let Some(feature) = queue.pop() {
        if enabled.insert(feature.clone()) {
            queue.extend(package.features.get(&feature).into_iter().flatten().cloned());
        }
    }
    // `x?/feature` does not enable `x`; `x/feature` does.
    let enables = move |name: &str| {
        let with_feature = format!("{name}/");
        enabled
            .iter()
            .any(|it| it == name || it.strip_prefix("dep:") == Some(name) || it.starts_with(&with_feature))
    };
    package.dependencies.iter().filter(move |dependency| {
        dependency.optional && enables(dependency.rename.as_deref().unwrap_or(&dependency.name))
    })
}
