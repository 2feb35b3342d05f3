//! Finds the targets of symbolic links: a program that trusts a name trusts the target of a link of
//! that name.

use std::collections::BTreeMap;

/// Maximum number of links on a path, as in the kernel.
const HOPS_MAX: usize = 40;

/// Beginnings of the names of texts that people read, which may lie in a trusted directory.
const TEXTS: [&str; 7] =
    ["README", "CONTRIBUTING", "CODE_OF_CONDUCT", "SECURITY", "SUPPORT", "LICENSE", "CHANGELOG"];

/// Symbolic links of a project: targets by path.
pub(crate) type Links = BTreeMap<String, String>;

/// Paths that protected names lead to.
#[derive(Debug, Default)]
pub(super) struct Behind(BTreeMap<String, Origin>);

/// A protected name that leads elsewhere.
#[derive(Debug, Clone)]
struct Origin {
    name: String,
    /// Why the name is protected.
    reason: String,
}

impl Behind {
    /// Adds all paths that a protected name leads to.
    pub(super) fn add(&mut self, links: &Links, name: &str, reason: &str) {
        let origin = Origin { name: name.to_owned(), reason: reason.to_owned() };
        let mut path = name.to_owned();
        for _ in 0..HOPS_MAX {
            let Some(next) = follow(links, &path) else { return };
            self.0.entry(next.clone()).or_insert_with(|| origin.clone());
            path = next;
        }
    }

    /// Returns why a path is protected: it is the target of a name, or lies in it, or is a
    /// directory above it.
    pub(super) fn reason(&self, path: &str) -> Option<String> {
        let at_or_above = || ancestors(path).find_map(|above| self.0.get(above));
        let start = format!("{path}/");
        let below = || self.0.range(start.clone()..).next().filter(|(below, _)| below.starts_with(&start));
        let Origin { name, reason } = at_or_above().or_else(|| below().map(|(_, origin)| origin))?;
        Some(format!("is what `{name}` leads to, which {reason}"))
    }
}

/// Returns whether a name is that of a text for people, which no program trusts.
pub(super) fn is_text(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    TEXTS.iter().any(|text| name.starts_with(text))
}

/// Replaces the first link on a path by its target. Returns `None` for a path without links, and
/// for a link that leads out of the project.
fn follow(links: &Links, path: &str) -> Option<String> {
    let mut above: Vec<&str> = ancestors(path).collect();
    above.reverse();
    let (link, target) = above.into_iter().find_map(|above| Some((above, links.get(above)?)))?;
    if target.starts_with('/') {
        return None;
    }
    let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut names: Vec<&str> = Vec::new();
    for name in directory.split('/').chain(target.split('/')).chain(path[link.len()..].split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}

/// Returns a path and the directories above it, the nearest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(links: &[(&str, &str)], name: &str) -> Behind {
        let links = links.iter().map(|(path, target)| ((*path).to_owned(), (*target).to_owned())).collect();
        let mut behind = Behind::default();
        behind.add(&links, name, "is trusted");
        behind
    }

    #[test]
    fn all_paths_on_the_way_are_protected() {
        let found = behind(&[("a/.envrc", "../env"), ("env", "all/dev"), ("all", "x")], "a/.envrc");
        for path in ["env", "all/dev", "all", "x/dev", "x", "x/dev/more"] {
            let expected = "is what `a/.envrc` leads to, which is trusted";
            assert_eq!(found.reason(path).as_deref(), Some(expected), "{path}");
        }
        for path in ["a", "environment", "x/other", "all/other"] {
            assert_eq!(found.reason(path), None, "{path}");
        }
        let found = behind(&[("scripts", "tools/scripts")], "scripts/check.sh");
        assert!(found.reason("tools/scripts/check.sh").is_some());
        assert_eq!(found.reason("tools/scripts/other.sh"), None);
    }

    #[test]
    fn links_that_lead_outside_or_in_circles_end() {
        for target in ["/etc", "../..", "..", "."] {
            assert!(behind(&[("a/l", target), ("a/..", "x")], "a/l").0.len() <= 1, "{target}");
        }
        assert!(behind(&[("a", "b/a"), ("b", "a/b")], "a").0.len() <= HOPS_MAX);
        assert!(is_text(".github/README.md") && !is_text(".github/workflows/ci.yml"));
    }
}
