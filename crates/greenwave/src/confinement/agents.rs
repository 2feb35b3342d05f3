//! The state of well-known agents in the user's home.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

use greenwave_dir::open_regular;

use super::paths::{Places, holds_projects};

/// Maximum size of a script in which names of agents are searched, in bytes.
const SCRIPT_BYTES_MAX: u64 = 64 * 1024;

/// Maximum number of files beside a script that may write beside itself.
const BESIDE_MAX: usize = 200;

/// Directories in the home directory, each with the variable that names another one.
const BASE_DIRECTORIES: [(&str, &str); 4] = [
    (".config/", "XDG_CONFIG_HOME"),
    (".cache/", "XDG_CACHE_HOME"),
    (".local/share/", "XDG_DATA_HOME"),
    (".local/state/", "XDG_STATE_HOME"),
];

/// An agent, by the name of its program.
struct KnownAgent {
    program: &'static str,
    /// Its settings, credentials, sessions and caches in the home directory. A name that ends with
    /// a slash is a directory, which is created for the agent if it does not exist.
    state: &'static [&'static str],
    /// The part of the state that names programs or instructions, which count in its sessions
    /// outside of the run. A name that ends with a slash is a directory.
    trusted: &'static [&'static str],
    /// Variables that name another directory for its state.
    variables: &'static [&'static str],
    /// Settings without which it changes files of the project that are not its answer.
    settings: &'static [(&'static str, &'static str)],
    /// Starts of the names of files that it leaves in the project for itself.
    leftovers: &'static [&'static str],
}

impl KnownAgent {
    const NONE: Self =
        Self { program: "", state: &[], trusted: &[], variables: &[], settings: &[], leftovers: &[] };
}

const AGENTS: [KnownAgent; 10] = [
    KnownAgent {
        program: "claude",
        state: &[
            ".claude/",
            ".claude.json",
            ".cache/claude/",
            ".cache/claude-cli-nodejs/",
            ".local/state/claude/",
        ],
        trusted: &[
            ".claude.json",
            ".claude/settings.json",
            ".claude/settings.local.json",
            ".claude/CLAUDE.md",
            ".claude/agents/",
            ".claude/commands/",
            ".claude/hooks/",
            ".claude/output-styles/",
            ".claude/plugins/",
            ".claude/skills/",
            ".claude/local/",
        ],
        variables: &["CLAUDE_CONFIG_DIR"],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "codex",
        state: &[".codex/"],
        trusted: &[
            ".codex/config.toml",
            ".codex/hooks.json",
            ".codex/AGENTS.md",
            ".codex/AGENTS.override.md",
            ".codex/prompts/",
            ".codex/rules/",
            ".codex/skills/",
        ],
        variables: &["CODEX_HOME"],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "opencode",
        state: &[
            ".local/share/opencode/",
            ".local/state/opencode/",
            ".config/opencode/",
            ".cache/opencode/",
            ".opencode",
        ],
        trusted: &[
            ".config/opencode/opencode.json",
            ".config/opencode/opencode.jsonc",
            ".config/opencode/AGENTS.md",
            ".config/opencode/agent/",
            ".config/opencode/agents/",
            ".config/opencode/command/",
            ".config/opencode/commands/",
            ".config/opencode/plugin/",
            ".config/opencode/plugins/",
            ".config/opencode/tool/",
            ".config/opencode/tools/",
            ".opencode",
        ],
        variables: &["OPENCODE_CONFIG_DIR"],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "gemini",
        state: &[".gemini/"],
        trusted: &[
            ".gemini/settings.json",
            ".gemini/trustedFolders.json",
            ".gemini/GEMINI.md",
            ".gemini/commands/",
            ".gemini/extensions/",
            ".gemini/policies/",
            ".gemini/skills/",
        ],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "aider",
        state: &[".aider/", ".aider.conf.yml"],
        trusted: &[".aider.conf.yml"],
        settings: &[("AIDER_GITIGNORE", "false")],
        leftovers: &[".aider."],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "goose",
        state: &[".config/goose/", ".local/share/goose/", ".local/state/goose/"],
        trusted: &[
            ".config/goose/config.yaml",
            ".config/goose/.goosehints",
            ".config/goose/recipes/",
            ".config/goose/skills/",
            ".config/goose",
        ],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "qwen",
        state: &[".qwen/"],
        trusted: &[
            ".qwen/settings.json",
            ".qwen/QWEN.md",
            ".qwen/agents/",
            ".qwen/commands/",
            ".qwen/extensions/",
            ".qwen/skills/",
        ],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "copilot",
        state: &[".copilot/", ".cache/copilot/"],
        trusted: &[".copilot/mcp-config.json", ".copilot/agents/", ".copilot/hooks/", ".copilot/skills/"],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "cursor-agent",
        state: &[".cursor/", ".config/cursor/"],
        trusted: &[
            ".cursor/mcp.json",
            ".cursor/hooks.json",
            ".cursor/hooks/",
            ".cursor/commands/",
            ".cursor/rules/",
            ".cursor/skills/",
        ],
        ..KnownAgent::NONE
    },
    KnownAgent {
        program: "amp",
        state: &[".config/amp/", ".local/share/amp/", ".cache/amp/"],
        trusted: &[
            ".config/amp/settings.json",
            ".config/amp/AGENTS.md",
            ".config/amp/skills/",
            ".config/amp/plugins/",
            ".config/amp",
        ],
        ..KnownAgent::NONE
    },
];

/// Returns the state of all agents.
pub(super) fn all_state(places: &Places) -> impl Iterator<Item = PathBuf> {
    AGENTS.iter().flat_map(|agent| state(agent, places))
}

/// Returns the state of the agents that a command names.
pub(super) fn own_state(command: &[String], places: &Places) -> Vec<PathBuf> {
    named_by(command).flat_map(|agent| state(agent, places)).collect()
}

/// Returns the settings of the agents that a command names which count in their sessions outside
/// of the run, in the home directory and in directories that variables name instead.
pub(super) fn own_trusted(command: &[String], places: &Places) -> Vec<PathBuf> {
    let paths = |agent: &'static KnownAgent| {
        let in_home = agent.trusted.iter().filter_map(|path| in_home(path, places));
        let moved = agent.variables.iter().filter_map(|name| places.variable(name)).flat_map(|directory| {
            let below = |path: &&str| directory.join(last_part(path));
            agent.trusted.iter().map(below).collect::<Vec<_>>()
        });
        in_home.chain(moved).collect::<Vec<_>>()
    };
    named_by(command).flat_map(paths).collect()
}

/// Returns the last name of a path, with a slash if the path ends with one.
fn last_part(path: &str) -> &str {
    let names = path.strip_suffix('/').unwrap_or(path);
    path.get(names.rfind('/').map_or(0, |slash| slash + 1)..).unwrap_or(path)
}

/// Returns the settings among [`own_trusted`] that an agent under mounts cannot change. It can
/// change whole directories of state, and its home directory is private.
pub(super) fn own_unchanged(command: &[String], places: &Places) -> Vec<PathBuf> {
    let state = own_state(command, places);
    let is_whole = |path: &PathBuf| state.iter().any(|state| same(state, path) && is_directory(state));
    let trusted = own_trusted(command, places).into_iter();
    trusted.filter(|path| !is_whole(path) && !path.ends_with(".claude.json")).collect()
}

fn is_directory(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Returns whether two paths differ at most by a slash at the end.
fn same(one: &Path, other: &Path) -> bool {
    one.components().eq(other.components())
}

/// Returns the names of the files in the home directory itself that the agents of a command change.
pub(super) fn own_files(command: &[String]) -> Vec<OsString> {
    let is_changed = |agent: &KnownAgent, path: &&&str| {
        !path.contains('/') && (!agent.trusted.contains(path) || **path == ".claude.json")
    };
    let files = |agent: &'static KnownAgent| agent.state.iter().filter(move |path| is_changed(agent, path));
    named_by(command).flat_map(files).map(OsString::from).collect()
}

/// Returns the variables that keep the agents of a command from changing files of the project that
/// are not their answer.
pub(crate) fn own_settings(command: &[String]) -> Vec<(OsString, Option<OsString>)> {
    let settings = named_by(command).flat_map(|agent| agent.settings);
    settings.map(|(name, value)| (name.into(), Some(value.into()))).collect()
}

/// Returns the starts of the names of files that the agents of a command leave in the project for
/// themselves.
pub(crate) fn leftovers(command: &[String]) -> Vec<&'static str> {
    named_by(command).flat_map(|agent| agent.leftovers.iter().copied()).collect()
}

/// Returns the agents that a command names, in its words or in a script that it runs.
fn named_by(command: &[String]) -> impl Iterator<Item = &'static KnownAgent> + use<> {
    let mut texts: Vec<String> = command.to_vec();
    texts.extend(command.iter().filter_map(|word| script(Path::new(word))));
    AGENTS.iter().filter(move |agent| texts.iter().any(|text| contains_word(text, agent.program)))
}

/// Returns the directory of a script that is the agent's program, and the start of the names of
/// files that belong to it, such as `agent.sh.log`. Scripts write such files beside themselves.
///
/// `None` for a script in the project, in a directory of installed programs, in the home directory
/// itself or in one for temporary files, and where many files lie beside it.
pub(super) fn beside_script(command: &[String], places: &Places) -> Option<(PathBuf, OsString)> {
    let program = Path::new(command.first()?);
    script(program).filter(|_| program.is_absolute())?;
    let program = program.canonicalize().ok()?;
    let directory = program.parent()?;
    let is_general = places.home.iter().chain(&places.programs).any(|other| other == directory);
    if is_general || directory.starts_with(&places.root) || !holds_projects(directory) {
        return None;
    }
    let mut prefix = program.file_name()?.to_owned();
    prefix.push(".");
    let is_small = directory.read_dir().ok()?.count() <= BESIDE_MAX;
    is_small.then(|| (directory.to_owned(), prefix))
}

/// Returns the paths of an agent's state.
fn state(agent: &KnownAgent, places: &Places) -> impl Iterator<Item = PathBuf> {
    let variables = agent.variables.iter().filter_map(|name| places.variable(name));
    agent.state.iter().filter_map(|path| in_home(path, places)).chain(variables)
}

/// Returns the place of a path in the home directory, or in the directory that a variable of the
/// [XDG base directories](https://specifications.freedesktop.org/basedir/latest/) names instead.
fn in_home(path: &str, places: &Places) -> Option<PathBuf> {
    let moved = BASE_DIRECTORIES
        .iter()
        .find_map(|(base, variable)| Some(places.variable(variable)?.join(path.strip_prefix(base)?)));
    moved.or_else(|| Some(places.home.as_ref()?.join(path)))
}

/// Returns the text of a script.
fn script(path: &Path) -> Option<String> {
    if path.as_os_str().as_encoded_bytes().contains(&b'\n') || !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    open_regular(path).ok()?.take(SCRIPT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let is_script = bytes.starts_with(b"#!") || path.extension() == Some(OsStr::new("sh"));
    is_script.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns whether a word of a text, such as a program in a command of a shell, has this name.
fn contains_word(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || "-_.".contains(character);
    text.split(|character: char| !is_part(character))
        // Packages of npm add a suffix: `claude-code`, `gemini-cli`, `opencode-ai`.
        .any(|word| word.strip_prefix(name).is_some_and(|rest| ["", "-code", "-cli", "-ai"].contains(&rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_in_its_command_and_in_its_script() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("agent.sh");
        std::fs::write(&script, "#!/bin/sh\nexec codex exec -\n").unwrap();
        let places = Places { home: Some("/h".into()), ..Places::default() };
        let own = |words: &[&str]| {
            let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            own_state(&command, &places)
        };
        let claude = |words: &[&str]| own(words).contains(&PathBuf::from("/h/.claude/"));
        assert!(claude(&["claude", "-p"]));
        assert!(claude(&["/usr/local/bin/claude"]));
        assert!(claude(&["npx", "@anthropic-ai/claude-code@2.1"]));
        assert!(claude(&["sh", "-c", "cat | claude -p --verbose"]));
        assert!(!claude(&["claudette"]));
        assert_eq!(own(&["sh", &script.to_string_lossy()]), [PathBuf::from("/h/.codex/")]);
        assert!(own(&["python3", "agent.py"]).is_empty());
        let places = Places {
            variables: [("CODEX_HOME".to_owned(), PathBuf::from("/c"))].into(),
            ..Places { home: Some("/h".into()), ..Places::default() }
        };
        let trusted = own_trusted(&["codex".to_owned()], &places);
        for path in ["/h/.codex/config.toml", "/h/.codex/skills/", "/c/config.toml", "/c/skills/"] {
            assert!(trusted.contains(&PathBuf::from(path)), "{path}");
        }
        let unchanged = own_unchanged(&["codex".to_owned()], &places);
        assert_eq!(unchanged, trusted);
        let own = |word: &str| own_unchanged(&[word.to_owned()], &places);
        assert!(own("goose").contains(&PathBuf::from("/h/.config/goose/config.yaml")));
        assert!(!own("goose").contains(&PathBuf::from("/h/.config/goose")));
        assert!(own("opencode").contains(&PathBuf::from("/h/.opencode")));
        assert!(!own("claude").contains(&PathBuf::from("/h/.claude.json")));
        assert!(own("claude").contains(&PathBuf::from("/h/.claude/hooks/")));
        let moved =
            [("XDG_STATE_HOME".to_owned(), PathBuf::from("/s")), ("XDG_CONFIG_HOME".to_owned(), "/x".into())];
        let places = Places { home: Some("/h".into()), variables: moved.into(), ..Places::default() };
        let state = own_state(&["opencode".to_owned()], &places);
        let expected = [
            "/h/.local/share/opencode/",
            "/s/opencode/",
            "/x/opencode/",
            "/h/.cache/opencode/",
            "/h/.opencode",
        ];
        assert_eq!(state, expected.map(PathBuf::from));
        let unchanged = own_unchanged(&["opencode".to_owned()], &places);
        assert!(unchanged.contains(&PathBuf::from("/x/opencode/opencode.json")));
        let words = ["aider", "--message", "x"].map(str::to_owned);
        assert_eq!(own_files(&words), [""; 0]);
        assert_eq!(own_files(&["claude".to_owned()]), [".claude.json"]);
        assert_eq!(own_settings(&words), [("AIDER_GITIGNORE".into(), Some("false".into()))]);
        assert_eq!(leftovers(&words), [".aider."]);
    }
}
