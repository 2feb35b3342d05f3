//! Files that programs of the user run or trust without being asked.

use greenwave_inputs::Selection;

use super::{matches, patterns};

/// Patterns of files that agents may not change unless a plan allows it, in the syntax of
/// `.gitignore`: what starts programs on the user's machine or in CI, or chooses which ones, when
/// somebody opens, builds or tests the project.
pub const PROTECTED_FILES: [&str; 126] = [
    // Version control and its hooks.
    ".git*",
    "!.gitkeep",
    ".hg*",
    ".husky",
    "lefthook.*",
    ".lefthook.*",
    ".pre-commit-config.yaml",
    ".pre-commit-hooks.yaml",
    ".overcommit.yml",
    ".lintstagedrc*",
    "lint-staged.config.*",
    ".simple-git-hooks.*",
    "simple-git-hooks.*",
    "pre-commit",
    "pre-push",
    "pre-receive",
    "commit-msg",
    "prepare-commit-msg",
    "post-checkout",
    "post-commit",
    "post-merge",
    "CODEOWNERS",
    // Continuous integration.
    ".circleci",
    ".buildkite",
    ".forgejo",
    ".woodpecker*",
    ".travis.yml",
    ".drone.yml",
    ".cirrus.yml",
    ".appveyor.yml",
    "appveyor.yml",
    "azure-pipelines*.yml",
    "bitbucket-pipelines.yml",
    "cloudbuild.yaml",
    ".build.yml",
    ".builds",
    ".tekton",
    ".semaphore",
    ".teamcity",
    "wercker.yml",
    "Jenkinsfile",
    "buildspec*.yml",
    "bitrise.yml",
    "codemagic.yaml",
    ".readthedocs.y*ml",
    "netlify.toml",
    "vercel.json",
    // Greenwave.
    ".greenwave",
    "greenwave.toml",
    // Editors, coding agents and containers of development.
    ".vscode",
    "*.code-workspace",
    ".idea",
    ".fleet",
    ".zed",
    ".devcontainer*",
    ".dir-locals.el",
    ".exrc",
    ".nvim.lua",
    ".claude",
    ".cursor*",
    ".mcp.json",
    ".opencode",
    "opencode.json*",
    ".gemini",
    ".codex",
    ".qwen",
    ".aider.conf.yml",
    ".kiro",
    ".clinerules*",
    ".continue",
    ".junie",
    ".trae",
    ".goosehints",
    ".copilot",
    ".agents",
    ".amp",
    ".roo",
    ".rooignore",
    ".roomodes",
    ".roorules*",
    ".windsurf*",
    ".vs",
    ".vim",
    ".vimrc",
    ".lvimrc",
    ".nvimrc",
    "*.sublime-project",
    "*.sublime-workspace",
    // Shells and version managers.
    ".envrc",
    // An `.envrc` that is permitted evaluates them when they change.
    "flake.nix",
    "shell.nix",
    "devenv.*",
    "devbox.json",
    ".tool-versions",
    ".mise*",
    "mise.toml",
    "rust-toolchain*",
    // Build tools and package managers.
    "build.rs",
    ".cargo",
    "conftest.py",
    "sitecustomize.py",
    "usercustomize.py",
    "*.pth",
    "setup.py",
    // Modules that would take the place of a runner of Python: the current directory comes first.
    "pytest.py",
    "unittest.py",
    "**/pytest/__init__.py",
    "**/_pytest/__init__.py",
    "**/unittest/__init__.py",
    "pip.conf",
    ".pdbrc*",
    ".pylintrc",
    ".irbrc",
    ".pryrc",
    ".bundle",
    ".Rprofile",
    ".Renviron",
    ".gdbinit",
    ".lldbinit",
    "bunfig.toml",
    ".bazelrc",
    ".npmrc",
    ".yarn*",
    ".pnp*.*js",
    "binding.gyp",
    ".mvn",
];

/// The files of the default list, as a plan changes it.
#[derive(Debug)]
pub(super) struct TrustedFiles {
    selection: Option<Selection>,
    /// Patterns of the plan alone.
    of_plan: Option<Selection>,
}

impl TrustedFiles {
    /// Compiles the default list with patterns of a plan. One that begins with `!` takes files out
    /// of the list.
    pub(super) fn new(protect: &[String]) -> Self {
        let default = PROTECTED_FILES.iter().map(|pattern| (*pattern).to_owned());
        let all: Vec<String> = default.chain(protect.iter().cloned()).collect();
        let added: Vec<String> =
            protect.iter().filter(|pattern| !pattern.starts_with('!')).cloned().collect();
        Self { selection: patterns(&all), of_plan: patterns(&added) }
    }

    /// Returns why a path is protected; `None` if it is not.
    pub(super) fn reason(&self, path: &str) -> Option<&'static str> {
        let is_in = |selection: &Option<Selection>| {
            let selection = selection.as_ref()?;
            // Some file systems ignore case.
            let is_matched = matches(selection, path) || matches(selection, &path.to_lowercase());
            is_matched.then_some(())
        };
        is_in(&self.selection)?;
        Some(match is_in(&self.of_plan) {
            Some(()) => "is protected by the plan (`protect`)",
            None => "is run or trusted automatically by other programs",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_start_programs_are_protected_in_any_case_and_directory() {
        let files = TrustedFiles::new(&[]);
        for path in [".envrc", "a/flake.nix", ".cursorrules", "sub/.GDBINIT", ".bundle/config", "vercel.json"]
        {
            assert!(files.reason(path).is_some(), "{path}");
        }
        for path in ["src/main.rs", "docs/flake.md", "cursor.rs", "a.nix", "bundle/config"] {
            assert_eq!(files.reason(path), None, "{path}");
        }
    }
}
