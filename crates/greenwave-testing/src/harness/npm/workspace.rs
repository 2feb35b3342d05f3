//! The workspaces of npm, pnpm, yarn, bun and Lerna, and their members.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde_json::Value;

use super::HARNESS;
use super::builds::parse_jsonc;
use super::package::{Package, Workspaces};
use crate::Error;
use crate::harness::discovery::DiscoveryNote;
use crate::harness::problem::Problem;
use crate::harness::project::Project;

/// File with the members of a pnpm workspace.
pub(super) const PNPM_WORKSPACE: &str = "pnpm-workspace.yaml";

/// A directory whose packages form one workspace.
pub(super) struct Workspace<'a> {
    pub(super) root: &'a Path,
    /// Patterns of directories below the root, and whether each excludes its matches.
    globs: Vec<(GlobMatcher, bool)>,
    manifest: PathBuf,
    /// Whether the last pattern that matches counts, and not any that excludes.
    is_ordered: bool,
}

impl<'a> Workspace<'a> {
    /// Reads the workspace whose root a package is; `None` if it is not a root.
    ///
    /// # Errors
    /// [`Error::Discover`] or [`Error::Io`] if its manifest cannot be read.
    pub(super) fn read(project: &Project, root: &'a Path, package: &Package) -> Result<Option<Self>, Error> {
        let (pnpm, lerna) = (root.join(PNPM_WORKSPACE), root.join("lerna.json"));
        let (manifest, patterns, is_ordered) = match &package.workspaces {
            _ if project.has(&pnpm) => {
                let patterns = pnpm_packages(&project.text(HARNESS, &pnpm)?);
                (pnpm, patterns, false)
            }
            Some(Workspaces::List(patterns) | Workspaces::Table { packages: patterns }) => {
                (root.join("package.json"), patterns.clone(), true)
            }
            None | Some(Workspaces::Other(_)) if project.has(&lerna) => {
                let patterns = lerna_packages(&project.text(HARNESS, &lerna)?);
                (lerna, patterns, false)
            }
            None | Some(Workspaces::Other(_)) => return Ok(None),
        };
        let mut globs = Vec::new();
        for text in patterns {
            let is_out = text.starts_with('!');
            let plain = text.trim_start_matches('!').trim_start_matches("./").trim_end_matches('/');
            let glob = GlobBuilder::new(plain).literal_separator(true).build();
            let invalid = |source| Problem::Pattern { file: Problem::file(&manifest), source };
            let glob = glob.map_err(|error| project.invalid(HARNESS, &manifest, invalid(error)))?;
            globs.push((glob.compile_matcher(), is_out));
        }
        Ok(Some(Self { root, globs, manifest, is_ordered }))
    }

    /// Returns whether a directory is the root or a member.
    pub(super) fn contains(&self, directory: &Path) -> bool {
        let Ok(inside) = directory.strip_prefix(self.root) else { return false };
        if inside.as_os_str().is_empty() {
            return true;
        }
        if inside.iter().any(|name| name == "node_modules") {
            return false;
        }
        let mut matching = self.globs.iter().filter(|(glob, _)| glob.is_match(inside));
        if self.is_ordered {
            return matching.next_back().is_some_and(|(_, is_out)| !is_out);
        }
        let mut is_in = false;
        for (_, is_out) in matching {
            if *is_out {
                return false;
            }
            is_in = true;
        }
        is_in
    }

    /// Returns whether a directory is the root.
    pub(super) fn has_root(&self, directory: &Path) -> bool {
        self.root == directory
    }

    /// Returns a note if a pattern of the workspace excludes a directory that another pattern
    /// includes.
    pub(super) fn exclusion(&self, directory: &Path) -> Option<DiscoveryNote> {
        let inside = directory.strip_prefix(self.root).ok()?;
        let mut matching = self.globs.iter().filter(|(glob, _)| glob.is_match(inside));
        if self.contains(directory) || !matching.clone().any(|(_, is_out)| !is_out) {
            return None;
        }
        let (glob, _) = matching.find(|(_, is_out)| *is_out)?;
        Some(DiscoveryNote::ExcludedPackage {
            directory: directory.to_owned(),
            manifest: self.manifest.clone(),
            pattern: format!("!{}", glob.glob()),
        })
    }

    /// Returns whether a directory is a member.
    pub(super) fn has_member(&self, directory: &Path) -> bool {
        directory != self.root && self.contains(directory)
    }

    /// Returns the members, with their directories.
    pub(super) fn members<'p>(
        &self,
        packages: &'p BTreeMap<&'a Path, Package>,
    ) -> impl Iterator<Item = (&'a Path, &'p Package)> {
        packages.iter().filter(|(path, _)| self.has_member(path)).map(|(path, package)| (*path, package))
    }
}

/// Returns the root of the workspace that a package belongs to. A root belongs to its own
/// workspace.
pub(super) fn root_of<'a>(workspaces: &[Workspace<'a>], directory: &Path) -> Option<&'a Path> {
    let own = workspaces.iter().find(|workspace| workspace.root == directory);
    own.or_else(|| workspaces.iter().find(|workspace| workspace.contains(directory))).map(|it| it.root)
}

/// Returns the list `packages` of a `pnpm-workspace.yaml`: a block of `- "glob"` lines, or a list
/// in brackets. Other keys of the file are ignored.
fn pnpm_packages(text: &str) -> Vec<String> {
    let plain = |item: &str| {
        let item = item.trim();
        let quoted = |quote: char| item.strip_prefix(quote).and_then(|rest| rest.split(quote).next());
        let bare = || item.split(" #").next().unwrap_or_default().trim();
        quoted('"').or_else(|| quoted('\'')).unwrap_or_else(bare).to_owned()
    };
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    let Some(rest) = lines.find_map(|line| line.strip_prefix("packages:")) else { return Vec::new() };
    // A list in brackets may continue on the next lines.
    let is_inline = |text: &str| text.trim_start().starts_with('[');
    let mut lines = lines.peekable();
    if is_inline(rest) || (rest.trim().is_empty() && lines.peek().is_some_and(|line| is_inline(line))) {
        let all: Vec<&str> = std::iter::once(rest).chain(lines).collect();
        let all = all.join(" ");
        let list = all.trim_start().trim_start_matches('[').split(']').next().unwrap_or_default();
        return list.split(',').map(plain).filter(|item| !item.is_empty()).collect();
    }
    let block = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    block.map_while(|line| line.strip_prefix('-')).map(plain).collect()
}

/// Returns the list `packages` of a `lerna.json`, with Lerna's default.
fn lerna_packages(text: &str) -> Vec<String> {
    let manifest = parse_jsonc(text).unwrap_or_default();
    match manifest.get("packages").and_then(Value::as_array) {
        Some(packages) => packages.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => vec!["packages/*".to_owned()],
    }
}
