//! Finds circles among the files of a crate: files that import each other, directly or through
//! others.
//!
//! A parent module and its descendants may import each other. The crate's root file is the parent
//! of all others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::imports::{self, Import, ModulePath};
use crate::Result;
use crate::source::{files_below, has_extension, is_test_or_example};

/// A circle: each import leads from a file to the next, and the last one leads back to the first
/// file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Circle {
    edges: Vec<Edge>,
    /// Number of files that the circle and all others it touches connect.
    connected: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: PathBuf,
    line: usize,
    /// The imported item, as a path from the crate's root.
    item: String,
    to: PathBuf,
}

/// Files as indices, and for each pair the first import that leads from one to the other.
struct FileGraph {
    files: Vec<(PathBuf, ModulePath)>,
    edges: BTreeMap<usize, BTreeMap<usize, Import>>,
}

/// Returns the circles of a crate, each as the shortest one among the files that it connects.
///
/// # Errors
/// If a file cannot be read or parsed.
pub(super) fn circles(crate_directory: &Path) -> Result<Vec<Circle>> {
    let sources = crate_directory.join("src");
    let mut texts = Vec::new();
    for path in files_below(&sources)? {
        if has_extension(&path, "rs") && !is_test_or_example(&path) {
            let text = fs::read_to_string(sources.join(&path))?;
            texts.push((path, text));
        }
    }
    circles_of(&texts)
}

fn circles_of(texts: &[(PathBuf, String)]) -> Result<Vec<Circle>> {
    let graph = FileGraph::new(texts)?;
    let all: BTreeSet<usize> = (0..graph.files.len()).collect();
    let mut found = Vec::new();
    graph.collect(&all, &mut found);
    Ok(found)
}

impl FileGraph {
    fn new(texts: &[(PathBuf, String)]) -> Result<Self> {
        let files: Vec<_> = texts.iter().map(|(path, _)| (path.clone(), imports::module_of(path))).collect();
        let mut edges: BTreeMap<usize, BTreeMap<usize, Import>> = BTreeMap::new();
        for import in imports::resolve(texts)? {
            if import.from != import.to {
                edges.entry(import.from).or_default().entry(import.to).or_insert(import);
            }
        }
        Ok(Self { files, edges })
    }

    /// Adds the circles among `files` to `found`.
    fn collect(&self, files: &BTreeSet<usize>, found: &mut Vec<Circle>) {
        for component in self.components(files) {
            // A parent and its descendants may form circles. Circles that do not pass through the
            // parent remain.
            let parent = component.iter().find(|file| component.iter().all(|it| self.is_within(*it, **file)));
            if let Some(parent) = parent {
                let mut rest = component.clone();
                rest.remove(parent);
                self.collect(&rest, found);
            } else {
                found.extend(self.shortest_circle(&component));
            }
        }
    }

    /// Returns whether a file's module is that of `parent` or a descendant of it.
    fn is_within(&self, file: usize, parent: usize) -> bool {
        self.files[file].1.starts_with(&self.files[parent].1)
    }

    /// Returns the sets of two or more files that reach each other within `files`.
    fn components(&self, files: &BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let reached: BTreeMap<usize, BTreeSet<usize>> =
            files.iter().map(|file| (*file, self.reach(*file, files))).collect();
        let mut components: Vec<BTreeSet<usize>> = Vec::new();
        for file in files {
            if components.iter().any(|component| component.contains(file)) {
                continue;
            }
            let component: BTreeSet<usize> =
                reached[file].iter().copied().filter(|other| reached[other].contains(file)).collect();
            if component.len() > 1 {
                components.push(component);
            }
        }
        components
    }

    fn reach(&self, from: usize, files: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut queue = vec![from];
        while let Some(file) = queue.pop() {
            for next in self.edges.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if files.contains(next) && reached.insert(*next) {
                    queue.push(*next);
                }
            }
        }
        reached
    }

    /// Returns the shortest circle that consists of more than a parent and its descendants, from
    /// its first file on.
    ///
    /// Any circle without a common parent contains an import between two unrelated modules, so that
    /// the search starts with each of those.
    fn shortest_circle(&self, component: &BTreeSet<usize>) -> Option<Circle> {
        let mut shortest: Option<Vec<usize>> = None;
        for from in component {
            for to in self.edges.get(from).into_iter().flat_map(BTreeMap::keys) {
                let is_related = self.is_within(*from, *to) || self.is_within(*to, *from);
                if is_related || !component.contains(to) {
                    continue;
                }
                let Some(path) = self.shortest_path(*to, *from, component) else { continue };
                let is_family = path.iter().any(|file| path.iter().all(|it| self.is_within(*it, *file)));
                if !is_family && shortest.as_ref().is_none_or(|it| path.len() < it.len()) {
                    shortest = Some(path);
                }
            }
        }
        let mut files = shortest?;
        let first = (0..files.len()).min_by_key(|at| files[*at])?;
        files.rotate_left(first);
        Some(self.circle(&files, component.len()))
    }

    fn shortest_path(&self, from: usize, to: usize, files: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let mut came_from = BTreeMap::from([(from, from)]);
        let mut queue = VecDeque::from([from]);
        while let Some(file) = queue.pop_front() {
            if file == to {
                let steps = std::iter::successors(Some(to), |at| (*at != from).then(|| came_from[at]));
                let mut path: Vec<usize> = steps.collect();
                path.reverse();
                return Some(path);
            }
            for next in self.edges.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if files.contains(next) && !came_from.contains_key(next) {
                    came_from.insert(*next, file);
                    queue.push_back(*next);
                }
            }
        }
        None
    }

    fn circle(&self, files: &[usize], connected: usize) -> Circle {
        let next = files.iter().cycle().skip(1);
        let edges = files.iter().zip(next).map(|(from, to)| {
            let import = &self.edges[from][to];
            Edge {
                from: self.files[*from].0.clone(),
                line: import.line,
                item: import.item.clone(),
                to: self.files[*to].0.clone(),
            }
        });
        Circle { edges: edges.collect(), connected }
    }
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for edge in &self.edges {
            write!(f, "{} -> ", edge.from.display())?;
        }
        let Some(last) = self.edges.last() else { return Ok(()) };
        let place = format!("{}:{}", last.from.display(), last.line);
        write!(f, "{} (closed by `{}` at {place}", last.to.display(), last.item)?;
        if self.connected > self.edges.len() {
            write!(f, "; one of several circles among {} files", self.connected)?;
        }
        write!(f, ")")
    }
}

#[cfg(test)]
mod tests;
