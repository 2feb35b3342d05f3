//! The files for Claude Code in `docs/mcp.md`.

use std::path::Path;
use std::process::Command;

use crate::mcp::project;
use crate::program::{Finished, Program};
use crate::test_dir::{STATE, TestDir};

/// Returns the block of the page that follows a line.
fn block(after: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/mcp.md")).unwrap();
    let rest = page.split_once(after).unwrap_or_else(|| panic!("no {after:?}")).1;
    let (_, rest) = rest.split_once("\n```").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("\n```").unwrap().0.to_owned() + "\n"
}

/// Runs the command of the hook, as Claude Code does after an edit.
fn run_hook(dir: &TestDir) -> Finished {
    let settings: serde_json::Value = serde_json::from_str(&block("`.claude/settings.json`")).unwrap();
    let hook = &settings["hooks"]["PostToolUse"][0];
    assert_eq!(hook["matcher"], "Edit|MultiEdit|Write");
    let mut command = Command::new("sh");
    command.args(["-c", hook["hooks"][0]["command"].as_str().unwrap()]);
    let programs = Path::new(env!("CARGO_BIN_EXE_greenwave")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    Program::of(command)
        .within(&dir.path("p"))
        .variable("PATH", path)
        .variable("CLAUDE_PROJECT_DIR", dir.path("p"))
        .variable("XDG_STATE_HOME", dir.path(STATE))
        .variable("XDG_CACHE_HOME", dir.path("cache"))
        .run()
}

#[test]
fn the_hook_shows_failures_to_the_agent_after_an_edit() {
    let dir = project();
    dir.write("p/.claude/hooks/greenwave.sh", block("`.claude/hooks/greenwave.sh`"));
    // The exit code with which Claude Code passes standard error to the model.
    let failed = run_hook(&dir).with_code(2);
    assert!(failed.stderr.contains("FAIL check a: failed with exit code 1"), "{}", failed.stderr);
    assert_eq!(failed.stdout, "");
    dir.write("p/a.txt", "1\n");
    let passed = run_hook(&dir).with_code(0);
    assert_eq!((passed.stdout.as_str(), passed.stderr.as_str()), ("", ""));
}

#[test]
fn the_skill_names_tools_of_the_server() {
    let skill = block("`.claude/skills/greenwave/SKILL.md`");
    let mut lines = skill.lines();
    assert_eq!(lines.next(), Some("---"));
    assert_eq!(lines.next(), Some("name: greenwave"));
    assert!(lines.next().unwrap().starts_with("description: "));
    for tool in ["run_tests", "why_rerun", "list_tests"] {
        assert!(skill.contains(&format!("`{tool}`")), "{tool}");
    }
}
