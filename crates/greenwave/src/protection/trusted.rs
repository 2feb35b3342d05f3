//! Files that programs of the user run or trust without being asked.

use std::sync::{Arc, LazyLock};

use greenwave_dir::folded_name;
use greenwave_inputs::Selection;

use super::{matches, names, patterns};

/// Patterns of files that agents may not change unless a plan allows it, in the syntax of
/// `.gitignore`: what starts programs on the user's machine or in CI, or chooses which ones, when
/// somebody opens, builds or tests the project. A file `.gitkeep` outside of the directories that
/// these patterns match is not protected.
pub const PROTECTED_FILES: [&str; 167] = [
    // Version control and its hooks.
    ".git*",
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
    ".idx",
    ".replit",
    "replit.nix",
    ".ycm_extra_conf.py",
    ".dir-locals.el",
    ".exrc",
    ".nvim.lua",
    ".claude",
    ".cursor*",
    ".mcp*.json",
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
    ".amazonq",
    ".augment*",
    ".crush*",
    "crush.json",
    ".factory",
    ".kilocode*",
    ".openhands",
    ".rules",
    ".ruler",
    ".skills",
    ".warp",
    ".zencoder",
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
    "gradlew*",
    "gradle-wrapper.*",
    "init.gradle*",
    "mvnw*",
    "Directory.Build.*",
    "Directory.Solution.*",
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
    // Code that toplevels read in the directory they start in, and settings that name code for the
    // checkers and language servers that editors start.
    ".ghci",
    ".ocamlinit",
    ".octaverc",
    ".perldb",
    ".iex.exs",
    ".formatter.exs",
    ".credo.exs",
    "jupyter*_config.*",
    "ipython*_config.*",
    "rust-analyzer.toml",
    ".eslintrc*",
    "eslint.config.*",
    ".prettierrc*",
    "prettier.config.*",
    ".stylelintrc*",
    "stylelint.config.*",
    ".rubocop*.yml",
    ".solargraph.yml",
    ".erb*lint.yml",
    ".flake8",
];

/// Patterns of files with instructions that coding agents of the user follow in the project. Agents
/// may not change them unless the prompt names the file, or a plan allows it.
pub const INSTRUCTION_FILES: [&str; 8] =
    ["AGENTS*.md", "AGENT.md", "CLAUDE*.md", "GEMINI*.md", "QWEN*.md", "CRUSH*.md", "WARP.md", "SKILL.md"];

/// The files of the default list, as a plan changes it.
#[derive(Debug)]
pub(super) struct TrustedFiles {
    all: AnyCase,
    instructions: AnyCase,
    /// Patterns of the plan alone.
    of_plan: AnyCase,
}

/// Patterns that match paths whatever their case, and other spellings for which some file system
/// finds the same file.
#[derive(Debug)]
struct AnyCase {
    patterns: Option<Selection>,
    in_lower_case: Option<Selection>,
}

impl AnyCase {
    fn new<'p>(list: impl Iterator<Item = &'p str>) -> Self {
        let list: Vec<String> = list.map(str::to_owned).collect();
        let lower: Vec<String> = list.iter().map(|pattern| pattern.to_lowercase()).collect();
        Self { patterns: patterns(&list), in_lower_case: patterns(&lower) }
    }

    fn matches(&self, path: &str) -> bool {
        let is_in = |selection: &Option<Selection>, path: &str| {
            selection.as_ref().is_some_and(|selection| matches(selection, path))
        };
        is_in(&self.patterns, path)
            || is_in(&self.in_lower_case, &path.to_lowercase())
            || is_in(&self.in_lower_case, &folded(path))
    }
}

/// Folds each name in a path. A name of nothing but invisible characters stays, since a path that
/// ends with a separator matches no pattern for files.
pub(super) fn folded(path: &str) -> String {
    let fold = |name: &str| Some(folded_name(name)).filter(|folded| !folded.is_empty());
    let names = path.split('/').map(|name| fold(name).unwrap_or_else(|| name.to_owned()));
    names.collect::<Vec<_>>().join("/")
}

/// The lists without patterns of a plan. They take milliseconds to compile.
static DEFAULT: LazyLock<Arc<TrustedFiles>> = LazyLock::new(|| Arc::new(TrustedFiles::new(&[])));

impl TrustedFiles {
    /// Returns the compiled lists with patterns of a plan.
    pub(super) fn of(protect: &[String]) -> Arc<Self> {
        if protect.is_empty() { Arc::clone(&DEFAULT) } else { Arc::new(Self::new(protect)) }
    }

    /// Compiles the default lists with patterns of a plan. One that begins with `!` takes files out
    /// of the lists.
    fn new(protect: &[String]) -> Self {
        let of_plan = || protect.iter().map(String::as_str);
        Self {
            all: AnyCase::new(PROTECTED_FILES.into_iter().chain(INSTRUCTION_FILES).chain(of_plan())),
            instructions: AnyCase::new(INSTRUCTION_FILES.into_iter()),
            of_plan: AnyCase::new(of_plan().filter(|pattern| !pattern.starts_with('!'))),
        }
    }

    fn lists(&self, path: &str) -> bool {
        // An exception in the patterns would also apply to directories of this name, and to their
        // files.
        match path.rsplit_once('/').unwrap_or(("", path)) {
            (parent, ".gitkeep") => self.all.matches(parent) || self.of_plan.matches(path),
            _ => self.all.matches(path),
        }
    }

    /// Returns why a path is protected from an agent with this prompt; `None` if it is not.
    pub(super) fn reason(&self, path: &str, prompt: &str) -> Option<&'static str> {
        if !self.lists(path) {
            return None;
        }
        if self.of_plan.matches(path) {
            return Some("is protected by the plan (`protect`)");
        }
        if self.instructions.matches(path) {
            return (!names(prompt, path))
                .then_some("instructs coding agents, and the prompt does not name it");
        }
        Some("is run or trusted automatically by other programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_start_programs_are_protected_in_any_case_and_directory() {
        let files = TrustedFiles::new(&[]);
        let paths =
            [".envrc", "a/flake.nix", ".cursorrules", "sub/.GDBINIT", ".bundle/config", "vercel.json"];
        for path in paths.into_iter().chain(["jenkinsfile", "CodeOwners", ".crush.json", "sub/.mcp.json"]) {
            assert!(files.reason(path, "").is_some(), "{path}");
        }
        for path in [
            ".vſcode/tasks.json",
            ".en\u{ad}vrc",
            "sub/.envrc.",
            ".envrc:stream",
            "git~1/config",
            ".vscode /\u{200b}",
        ] {
            assert!(files.reason(path, "").is_some(), "{path}");
        }
        for path in [".claude/commands/.gitkeep/x.md", ".gitkeep/x", ".github/.gitkeep", ".cursor/.gitkeep"] {
            assert!(files.reason(path, "").is_some(), "{path}");
        }
        for path in [
            "src/.gitkeep",
            ".gitkeep",
            "src/main.rs",
            "docs/flake.md",
            "cursor.rs",
            "a.nix",
            "bundle/config",
        ] {
            assert_eq!(files.reason(path, ""), None, "{path}");
        }
    }

    #[test]
    fn instructions_of_agents_are_protected_unless_the_prompt_names_them() {
        let files = TrustedFiles::new(&[]);
        for path in ["AGENTS.md", "sub/CLAUDE.md", "claude.local.md", "GEMINI.md", "skills/x/SKILL.md"] {
            assert!(files.reason(path, "Write add.").is_some_and(|it| it.contains("instructs")), "{path}");
        }
        assert_eq!(files.reason("sub/CLAUDE.md", "Describe the layout in CLAUDE.md."), None);
        // A prompt that names another file of the kind, or a longer name.
        assert!(files.reason("AGENTS.md", "Describe the layout in CLAUDE.md.").is_some());
        assert!(files.reason("AGENTS.md", "Write MY_AGENTS.md.").is_some());
        // Settings that start programs need more than a name in the prompt.
        assert!(files.reason(".mcp.json", "Write .mcp.json.").is_some());
        assert_eq!(TrustedFiles::new(&["!AGENTS.md".to_owned()]).reason("AGENTS.md", ""), None);
        let of_plan = TrustedFiles::new(&["AGENTS.md".to_owned()]);
        assert!(of_plan.reason("AGENTS.md", "Write AGENTS.md.").is_some_and(|it| it.contains("protect")));
    }
}
