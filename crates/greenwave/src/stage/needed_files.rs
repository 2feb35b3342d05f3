//! Finds ignored files that a test misses in a working copy.
//!
//! Copies have no ignored files, so a test that reads `.env` or generated sources fails there and
//! passes in the project. Its output names the file. Before an agent has written anything, the
//! tests are the user's, and such files are copied. Later, the code under test could name any file,
//! so they are only reported.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use greenwave_inputs::ALWAYS_EXCLUDED;

use super::Stage;
use crate::error::FeatureError;
use crate::event::Event;
use crate::included::is_secret;
use crate::plan::BaseKind;
use crate::tree;

/// Words of lines that say that something is missing, in lower case.
const MISSING: [&str; 10] = [
    "no such file",
    "not found",
    "no module named",
    "cannot find",
    "can't find",
    "can't open",
    "could not find",
    "could not open",
    "does not exist",
    "enoent",
];
/// Endings that make a file of a module's name.
const ENDINGS: [&str; 9] = ["", ".py", "/__init__.py", ".js", ".ts", ".json", "/index.js", ".go", ".rb"];
/// Maximum size of the output that is searched, from its end, in bytes.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

impl Stage<'_> {
    /// Finds ignored files that the output of a failed test names as missing. Copies them into the
    /// workspace if that is allowed, and reports them. Returns whether there are any.
    pub(super) async fn take_needed_files(
        &mut self,
        test: &str,
        output: &[u8],
        may_copy: bool,
    ) -> Result<bool, FeatureError> {
        if self.ctx.plan.base == BaseKind::Head {
            // Files with uncommitted work are left out on purpose.
            return Ok(false);
        }
        let copies = &self.ctx.copies;
        let project = copies.root.path.join(&copies.root.project);
        let output = String::from_utf8_lossy(&output[output.len().saturating_sub(OUTPUT_BYTES_MAX)..]);
        let output = output.replace(&format!("{}/", self.active.workspace.root().display()), "");
        let tree = self.active.workspace.tree();
        let is_ignored = |path: &String| {
            project.join(path).symlink_metadata().is_ok() && !tree::contains(tree, &copies.root.within(path))
        };
        let mut found = Vec::new();
        for path in missing_paths(&output).into_iter().filter(is_ignored) {
            if !may_copy || copies.include_needed(&copies.root.within(&path))? {
                found.push(path);
            }
        }
        if found.is_empty() {
            return Ok(false);
        }
        let names: Vec<String> = found.iter().map(|path| format!("`{path}`")).collect();
        let names = names.join(", ");
        let message = if may_copy {
            let who =
                if found.iter().all(|path| is_secret(path)) { " for tests, not for agents" } else { "" };
            format!("test `{test}` needs {names}, which git ignores: copied{who}")
        } else {
            format!("test `{test}` needs {names}, which git ignores and working copies lack")
        };
        let hint = Some(format!("add {found:?} to `include` in the plan"));
        let feature = Some(self.feature().id.clone());
        self.ctx.emit(Event::Note { code: "ignored-file-needed", feature, message, hint }).await;
        if may_copy {
            let files = self.active.workspace.tree().clone();
            self.active.workspace.prepare(&files, &self.ctx.store).await?;
        }
        Ok(true)
    }
}

/// Returns the relative paths that an output may name as missing.
fn missing_paths(output: &str) -> BTreeSet<String> {
    let is_missing = |line: &&str| {
        let line = line.to_lowercase();
        MISSING.iter().any(|words| line.contains(words))
    };
    let is_part = |character: char| character.is_alphanumeric() || "._-/@+".contains(character);
    let mut paths = BTreeSet::new();
    for word in output.lines().filter(is_missing).flat_map(|line| line.split(|c| !is_part(c))) {
        let word = word.trim_start_matches("./").trim_end_matches(['.', '/', '-']);
        let mut names = vec![word.to_owned()];
        if !word.contains('/') && !word.starts_with('.') {
            // A module of Python, and the packages above it.
            let parts: Vec<&str> = word.split('.').collect();
            names.extend((1..=parts.len()).map(|count| parts[..count].join("/")));
        }
        let files = names.iter().flat_map(|name| ENDINGS.iter().map(move |ending| format!("{name}{ending}")));
        paths.extend(files.filter(|path| is_plain(path)));
    }
    paths
}

/// Returns whether a path stays inside the project and is not part of a repository's data.
fn is_plain(path: &str) -> bool {
    let is_name = |part| matches!(part, Component::Normal(name) if !is_excluded(name));
    !path.is_empty() && Path::new(path).components().all(is_name)
}

fn is_excluded(name: &std::ffi::OsStr) -> bool {
    ALWAYS_EXCLUDED.iter().any(|excluded| name == *excluded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_name_missing_files() {
        for (output, path) in [
            ("FileNotFoundError: [Errno 2] No such file or directory: '.env'", ".env"),
            ("ModuleNotFoundError: No module named 'gen'", "gen"),
            ("ModuleNotFoundError: No module named 'gen.schema'", "gen/schema.py"),
            ("Error: Cannot find module './gen/api'", "gen/api.js"),
            ("cat: data/big.csv: No such file or directory", "data/big.csv"),
            ("open config/local.toml: no such file or directory", "config/local.toml"),
        ] {
            assert!(missing_paths(output).contains(path), "{output}: {:?}", missing_paths(output));
        }
    }

    #[test]
    fn only_paths_inside_the_project_count() {
        let output =
            "cat: /etc/passwd: No such file or directory\ncat: ../x: No such file\n.git/config not found";
        let found = missing_paths(output);
        assert!(found.iter().all(|path| !path.starts_with('/') && !path.contains("..")), "{found:?}");
        assert!(!found.iter().any(|path| path.starts_with(".git")), "{found:?}");
        assert!(missing_paths("AssertionError: .env has no KEY").is_empty());
    }
}
