//! `greenwave plan`: plans that agents write, and plans of lists of issues.

use std::fs::File;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::test_dir::TestDir;

/// Agents for a project in `project`. `coder` first writes a plan with an unknown dependency. Its
/// second plan is correct if the prompt has that error, and comes with a test and with other files.
const AGENTS: &str = r#"
budget = { usd = 5 }

[agents.coder]
kind = "command"
command = ["sh", "-c", '''
prompt=$(cat)
mkdir tests
echo "test -f one.txt" > tests/one.sh
printf '%s\n' "$prompt" > tests/prompt.txt
echo x > other.txt
echo changed >> keep.txt
case $prompt in
*'unknown dependency `two`'*) after= ;;
*) after=two ;;
esac
printf '[[features]]\nid = "one"\ndepends_on = ["%s"]\nprompt = "Do one."\ntests = [{ command = ["sh", "tests/one.sh"] }]\n' \
  "$after" | sed 's/\[""\]/[]/' > greenwave-plan.toml
''']

[agents.silent]
kind = "command"
command = ["echo", "I do not know."]

[agents.hostile]
kind = "command"
command = ["sh", "-c", '''
printf 'notify = ["touch", "x"]\n[[features]]\nid = "a"\nprompt = ""\ntests = [{ command = ["true"] }]\n' > greenwave-plan.toml
''']

[agents.slow]
kind = "command"
command = ["sh", "-c", "sleep 60"]
"#;

fn dir() -> TestDir {
    TestDir::with_project().with("agents.toml", format!("project = \"project\"\n{AGENTS}"))
}

/// The arguments of a plan by an agent of `agents.toml`.
fn by(agent: &str) -> [&str; 9] {
    ["plan", "Make one", "--project", "project", "--config", "agents.toml", "--agent", agent, "--no-metrics"]
}

#[test]
fn an_agent_writes_a_plan_and_corrects_its_errors() {
    let dir = dir();
    let finished = dir.greenwave(by("coder")).run().with_code(0);
    assert_snapshot!(finished.stdout, @r#"
      attempt 1: the agent writes a plan
      attempt 1 rejected:
          test output:
            | greenwave-plan.toml:39:15: unknown dependency `two` in feature `one`
            |    |
            | 39 | depends_on = ["two"]
            |    |               ^^^^^
          hint: show all of it with `greenwave attempts greenwave-plan`
      attempt 2: the agent writes a plan
    flowchart LR
        n0["one"]

    Created plan.toml with 1 feature, and new tests: `tests/one.sh`, `tests/prompt.txt`
    To check that its tests fail now: greenwave run --check=red plan.toml
    To run it: greenwave run plan.toml
    "#);
    let plan = dir.read("plan.toml");
    let (header, features) = plan.split_once("\n[[features]]").unwrap();
    assert!(header.contains("project = \"project\"") && header.contains("usd = 5"), "{header}");
    assert_snapshot!(features, @r#"
    id = "one"
    depends_on = []
    agent = "coder"
    prompt = "Do one."

    [[features.tests]]
    command = ["sh", "tests/one.sh"]
    "#);
    // Nothing but the tests is used.
    let files: Vec<String> = dir.files("project").into_keys().collect();
    assert_eq!(files, ["keep.txt", "tests/one.sh", "tests/prompt.txt"]);
    assert_eq!(dir.read("project/keep.txt"), "keep\n");
    let prompt = dir.read("project/tests/prompt.txt");
    for part in ["The goal:\n\nMake one\n", "one of: `coder`, `hostile`, `silent`", "greenwave-plan.toml:"] {
        assert!(prompt.contains(part), "{part:?} in {prompt}");
    }
    // The plan runs as it is, and its test is red.
    dir.greenwave(["run", "plan.toml", "--check=red", "--no-metrics"]).run().with_code(0);
}

#[test]
fn a_plan_with_errors_is_not_written() {
    let dir = dir();
    for (agent, reason) in [
        ("silent", "the agent changed no file"),
        ("hostile", "unexpected key `notify`: expected only `[[features]]` and `[resources]`"),
    ] {
        let finished = dir.greenwave(by(agent).into_iter().chain(["--attempts", "1"])).run().with_code(1);
        assert!(finished.stdout.contains(reason), "{}", finished.stdout);
        assert!(finished.stdout.contains("No plan was written"), "{}", finished.stdout);
    }
    assert!(!dir.path("plan.toml").exists());
    assert_eq!(dir.files("project").len(), 1);
    // Later plans begin with the first attempt.
    assert_eq!(dir.approvals("greenwave-plan", "held").len(), 0);
}

#[test]
fn a_signal_ends_the_wait_for_a_plan() {
    let dir = dir();
    let mut running = dir.greenwave(by("slow")).start();
    running.read_until("the agent writes a plan");
    running.signal(Signal::TERM);
    running.finish().with_code(143);
    assert!(!dir.path("plan.toml").exists());
}

#[test]
fn the_events_of_a_plan_match_their_schema() {
    let agents = AGENTS.split_once("[agents.coder]").unwrap().1.split_once("[agents.silent]").unwrap().0;
    let dir = TestDir::with_project().with("project/greenwave.toml", format!("[agents.coder]{agents}"));
    let args = ["plan", "Make one", "--agent", "coder", "--format", "json", "--project", "project"];
    let finished = dir.greenwave(args.into_iter().chain(["-o", "project/p.toml"])).run().with_code(0);
    let events = finished.events();
    assert_eq!(events[0]["event"], "settings");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["features"]), (&"planned".into(), &1.into()));
    assert_eq!(last["tests"], serde_json::json!(["tests/one.sh", "tests/prompt.txt"]));
    assert_eq!(last["graph"], "flowchart LR\n    n0[\"one\"]");
    assert!(events.iter().any(|event| event["event"] == "refused"));
    assert!(!events.iter().any(|event| event["event"] == "needs_you"), "nobody has to approve a plan");
    assert!(dir.read("project/p.toml").contains("project = \".\""));
}

const ISSUES: &str = r#"[
  {"number": 12, "title": "Parse \"dates\"", "body": "As in RFC 3339.\r\n\r\nDepends on #3."},
  {"number": 3, "title": "Lexer", "body": ""}
]"#;

#[test]
fn issues_become_features_without_an_agent() {
    let dir = TestDir::with_project().with("issues.json", ISSUES).with("list.md", "- [ ] One\n- [x] Two\n");
    let from = ["plan", "--from", "issues.json", "--project", "project"];
    let finished = dir.greenwave(from).run().with_code(0);
    assert_snapshot!(finished.stdout, @r#"
    flowchart LR
        n0["issue-12<br/>Parse &quot;dates&quot;"]
        n1["issue-3<br/>Lexer"]
        n1 --> n0

    Created plan.toml with 2 features
    Add tests to 2 features; to see which: greenwave run --check plan.toml
    To run it: greenwave run plan.toml
    "#);
    assert_snapshot!(dir.read("plan.toml"), @r#"
    # Written by `greenwave plan`.

    project = "project"

    [agents.claude]
    kind = "claude"

    [[features]]
    id = "issue-12"
    title = "Parse \"dates\""
    depends_on = ["issue-3"]
    agent = "claude"
    prompt = """
    Parse "dates"

    As in RFC 3339.

    Depends on #3."""
    # Tests that fail now and must pass:
    # [[features.tests]]
    # command = ["cargo", "test", "--test", "NAME"]

    [[features]]
    id = "issue-3"
    title = "Lexer"
    agent = "claude"
    prompt = "Lexer"
    # Tests that fail now and must pass:
    # [[features.tests]]
    # command = ["cargo", "test", "--test", "NAME"]
    "#);
    let check = dir.greenwave(["run", "--check", "plan.toml"]).run().with_code(2);
    assert!(
        check.stderr.contains("invalid value `[]` for `tests` in feature `issue-12`"),
        "{}",
        check.stderr
    );
    let list = File::open(dir.path("list.md")).unwrap();
    let finished = dir.greenwave(["plan", "--from", "-", "-o", "list.toml"]).stdin(list).run().with_code(0);
    assert!(finished.stdout.contains("Created list.toml with 1 feature\n"), "{}", finished.stdout);
}

#[test]
fn an_agent_adds_tests_to_issues() {
    let script = "printf '[[features]]\\nid = \"issue-3\"\\nprompt = \"{issue} In rust.\"\\n\
                  tests = [{ command = [\"sh\", \"-c\", \"false\"] }]\\n' > greenwave-plan.toml\n\
                  case $(cat) in *'missing features'*) printf '[[features]]\\nid = \"issue-12\"\\n\
                  tests = [{ command = [\"sh\", \"-c\", \"false\"] }]\\n' >> greenwave-plan.toml;; esac";
    let agents = format!("[agents.a]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n");
    let dir = TestDir::with_project().with("issues.json", ISSUES).with("project/greenwave.toml", agents);
    let args = ["plan", "--from", "issues.json", "--agent", "a", "--project", "project"];
    let finished = dir.greenwave(args).run().with_code(0);
    assert!(finished.stdout.contains("each issue needs one with its id: `issue-12`"), "{}", finished.stdout);
    let plan = dir.read("plan.toml");
    assert!(plan.contains("prompt = \"Lexer In rust.\""), "{plan}");
    assert!(
        plan.contains("prompt = \"\"\"\nParse \"dates\"\n\nAs in RFC 3339.\n\nDepends on #3.\"\"\""),
        "{plan}"
    );
}

#[test]
fn no_file_is_overwritten_unless_forced() {
    let dir = dir().with("plan.toml", "# mine\n");
    let finished = dir.greenwave(by("coder")).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: cannot create plan.toml
      caused by: File exists (os error 17)
    hint: pass `--force` to overwrite it, or name another file with `-o`
    ");
    assert_eq!((finished.stdout.as_str(), dir.read("plan.toml").as_str()), ("", "# mine\n"));
    dir.greenwave(by("coder").into_iter().chain(["--force"])).run().with_code(0);
    assert!(dir.read("plan.toml").contains("id = \"one\""));
}

#[test]
fn mistakes_name_what_is_expected() {
    let dir = TestDir::with_project()
        .with("issues.txt", "Nothing.\n")
        .with("cycle.json", ISSUES.replace("\"\"", "\"After #12\""));
    let mut all = String::new();
    for args in [
        &["plan"][..],
        &["plan", "x", "--agent", "claud"],
        &["plan", "--from", "issues.txt"],
        &["plan", "--from", "nowhere.json"],
        &["plan", "--from", "cycle.json"],
    ] {
        let finished = dir.greenwave(args.iter().copied()).run().with_code(2);
        all.push_str(&format!("$ greenwave {}\n{}\n", args.join(" "), finished.stderr));
    }
    assert_snapshot!(all, @r#"
    $ greenwave plan
    error: the following required arguments were not provided:
      --agent <NAME>
      <GOAL>

    Usage: greenwave plan --agent <NAME> <GOAL>

    For more information, try '--help'.

    $ greenwave plan x --agent claud
    error: unknown agent `claud`: expected one of `claude`, `codex`, `opencode`, `gemini`, `aider`
    hint: name an agent of `[agents]` in greenwave.toml or in the plan of `--config`

    $ greenwave plan --from issues.txt
    error: cannot read issues from issues.txt: it has no issue that is open
    hint: pass the output of `gh issue list --json number,title,body`, or a list in Markdown

    $ greenwave plan --from nowhere.json
    error: cannot read nowhere.json
      caused by: No such file or directory (os error 2)

    $ greenwave plan --from cycle.json
    error: plan.toml:26:15: cyclic dependency of features: issue-12 -> issue-3 -> issue-12
       |
    26 | depends_on = ["issue-12"]
       |               ^^^^^^^^^^
    "#);
    assert!(!dir.path("plan.toml").exists());
}
