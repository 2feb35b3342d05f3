//! All ways by which words of agents and tests, and names of files, features and tests, leave the
//! program. In none of them is a control sequence other than a color, or a mark that changes the
//! direction of the text.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::mcp_client::Client;
use crate::metrics::{Events, get};
use crate::program::{Finished, Program};
use crate::shell_plan::{self, ShellFeature};
use crate::terminal::on_terminal;
use crate::test_dir::TestDir;

/// Prints a word, and sequences that set the title, write to the clipboard, move the cursor, clear
/// the screen and make links, also as C1 characters, and marks that turn the text.
const SAY: &str = r"printf 'SAID \033]0;t\007\033]52;c;ZXZpbA==\007\033[2J\033[1A\033c\302\2332J\302\235x\302\234\342\200\256rev\342\201\246i\342\201\251\177\b\033]8;;http://x\033\\l\033]8;;\033\\ \033Pq\033\\\033[31mred\n'";

/// Prints a name with a mark that turns the text.
const NAME: &str = r"$(printf 'na\342\200\256me').txt";

/// Sequences that the program writes itself on a terminal, for its progress line and its board.
const OWN: char = '\r';

/// Checks that a text has a part, and no character that does something on a terminal.
#[track_caller]
fn check(channel: &str, text: &str, part: &str) {
    assert!(text.contains(part), "{channel} lacks {part:?}: {text}");
    let is_unsafe = |character: &char| {
        let is_direction = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (character.is_control() && !matches!(character, '\n' | '\t')) || is_direction
    };
    let without_colors = without_colors(text);
    let found = without_colors.char_indices().find(|(_, character)| is_unsafe(character));
    if let Some((at, character)) = found {
        let start = without_colors.floor_char_boundary(at.saturating_sub(60));
        let end = without_colors.ceil_char_boundary(at + 20);
        panic!("{channel} has {character:?} in {:?}", &without_colors[start..end]);
    }
}

/// Removes the sequences that set colors.
fn without_colors(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|byte: char| !matches!(byte, '0'..='9' | ';' | ':')).unwrap_or(part.len());
        match part[end..].strip_prefix('m') {
            Some(rest) => result.push_str(rest),
            None => result.extend(["\x1b[", part]),
        }
    }
    result
}

/// Checks the output on a terminal, without the sequences of the program itself: lines that
/// are cleared, and the cursor that moves to write them again.
#[track_caller]
fn check_terminal(channel: &str, text: &str, part: &str) {
    let mut text = text.replace("\r\n", "\n").replace("\x1b[2K", "").replace(OWN, "");
    for lines in 1..24 {
        for direction in ["A", "B"] {
            text = text.replace(&format!("\x1b[{lines}{direction}"), "");
        }
    }
    check(channel, &text, part);
    for forged in ["]52;", "]0;t"] {
        assert!(!text.contains(&format!("\x1b{forged}")), "{channel}: {text}");
    }
}

/// Checks all texts in a value, and the keys.
#[track_caller]
fn check_value(channel: &str, value: &Value, names: &[&str]) {
    match value {
        Value::String(text) => check(channel, text, ""),
        Value::Array(values) => values.iter().for_each(|value| check_value(channel, value, names)),
        Value::Object(members) => {
            for (key, value) in members {
                check(channel, key, "");
                // Clients pass names back, so they are as they are.
                if !names.contains(&key.as_str()) {
                    check_value(channel, value, names);
                }
            }
        }
        _ => {}
    }
}

/// A project whose feature `one` is green and `two` fails.
fn plan_dir() -> TestDir {
    let script = format!("{SAY}; {SAY} >&2; {SAY} > one.txt; {SAY} > \"{NAME}\"");
    let title = "title = \"T \\u202e \\u009b2J \\u001b]0;t\\u0007\"";
    let one = ShellFeature::new("one", &script, &format!("{SAY}; test -f one.txt")).lines(title);
    let script = format!("{SAY}; {SAY} >&2; echo x > \"{NAME}\"");
    let two = ShellFeature::new("two", &script, &format!("{SAY}; test -f two.txt"));
    TestDir::with_project().with("plan.toml", shell_plan::plan(&[one, two]))
}

fn output(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
fn a_run_and_its_records_have_no_control_sequences() {
    let dir = plan_dir();
    let run = |args: &[&str]| {
        let args = ["run", "plan.toml", "--no-metrics"].into_iter().chain(args.iter().copied());
        dir.greenwave(args)
    };
    check("run", &output(&run(&["--trace", "trace.json"]).run().with_code(1)), "SAID");
    check("trace", &dir.read("trace.json"), "na\\u202eme");
    let shown = |args: &[&str]| output(&dir.greenwave(args.iter().copied()).run());
    check("attempts", &shown(&["attempts", "plan.toml"]), "two");
    check("attempts of a green feature", &shown(&["attempts", "plan.toml", "one"]), "SAID");
    check("attempts of a failed feature", &shown(&["attempts", "plan.toml", "two"]), "SAID");
    check("attempts as JSON", &shown(&["attempts", "plan.toml", "two", "--format", "json"]), "SAID");
    check("graph", &shown(&["graph", "plan.toml"]), "one");
    check("check", &shown(&["run", "--check", "plan.toml"]), "one");
    check("recorded runs", &shown(&["dashboard", "plan.toml", "--list"]), "plan");
    let records = std::fs::read_dir(dir.path("project/.greenwave/runs")).unwrap();
    let records: Vec<String> =
        records.map(|record| std::fs::read_to_string(record.unwrap().path()).unwrap()).collect();
    check("record", &records.concat(), "na\\\\u{202e}me");
    // The failed feature starts again.
    check("run as JSON", &output(&run(&["--format", "json"]).run().with_code(1)), "SAID");
    let (finished, text) = on_terminal(run(&[]));
    finished.with_code(1);
    check_terminal("run on a terminal", &text, "SAID");
    check_dashboard(&dir);
    check_plan_tools(&dir);
}

fn check_dashboard(dir: &TestDir) {
    let mut running = dir.greenwave(["dashboard", "plan.toml", "--run", "3", "--metrics-port", "0"]).start();
    let line = running.read_until("Dashboard: ");
    let address = line.trim().strip_prefix("Dashboard: http://").unwrap().strip_suffix('/').unwrap();
    let events = Events::open(address).until("\"event\":\"finished\"");
    check("events of the dashboard", &events.replace('\r', ""), "na\\\\u{202e}me");
    for event in events.lines().filter_map(|line| line.strip_prefix("data: ")) {
        // A title of the plan has an escape character, which a page does not show.
        let text = serde_json::from_str::<Value>(event).unwrap().to_string().replace("\\u001b", "");
        check("an event of the dashboard", &text, "");
    }
    for feature in ["one", "two"] {
        let response = get(address, &format!("/feature?id={feature}"));
        let body = response.split_once("\r\n\r\n").unwrap().1;
        check("attempts of the dashboard", body, "SAID");
    }
    check("page of the dashboard", get(address, "/").split_once("\r\n\r\n").unwrap().1, "Greenwave");
}

fn check_plan_tools(dir: &TestDir) {
    let mut client = Client::start(dir.greenwave(["mcp"]).variable("XDG_CACHE_HOME", dir.path("cache")));
    for (tool, arguments, part) in [
        ("plan_status", json!({"plan": "plan.toml"}), "one"),
        ("attempts", json!({"plan": "plan.toml", "feature": "one", "number": 1}), "SAID"),
        ("attempts", json!({"plan": "plan.toml", "feature": "two", "number": 1}), "SAID"),
        ("attempt_diff", json!({"plan": "plan.toml", "feature": "two", "from": 1, "to": 2}), ""),
        ("attempts", json!({"plan": "plan.toml", "feature": "\u{1b}[2J\u{202e}"}), "2J"),
        ("run_plan", json!({"plan": "\u{1b}]0;t\u{7}\u{202e}.toml"}), "cannot read plan"),
    ] {
        let result = client.call(tool, &arguments);
        check(tool, result["content"][0]["text"].as_str().unwrap(), part);
        check_value(tool, &result["structuredContent"], &["feature"]);
    }
}

/// A project with a hostile test that fails, one that passes, and one with a report in JUnit XML.
fn test_dir() -> TestDir {
    let test = |name: &str, command: &str, lines: &str| {
        format!("[[test]]\nname = \"{name}\"\ncommand = [\"sh\", \"-c\", '''{command}''']\n{lines}\n",)
    };
    let report = "<testsuites><testsuite name=\"s\"><testcase name=\"case &#x9b;2J \u{202e}x\" \
                  classname=\"c\u{202e}\"><failure message=\"SAID &#x9b;\u{202e}\">SAID \u{202e}</failure>\
                  </testcase></testsuite></testsuites>";
    let settings = [
        test("fail \\u202e \\u009b2J", &format!("{SAY}; {SAY} >&2; exit 1"), ""),
        test("pass \\u202e", &format!("{SAY}; cat in.txt"), ""),
        test("unit", "cp report.in report.xml; exit 1", "harness = \"junit\"\nreport = \"report.xml\""),
    ];
    TestDir::empty()
        .with("p/greenwave.toml", settings.concat())
        .with("p/report.in", report)
        .with("p/in.txt", "in")
}

fn tests(dir: &TestDir, args: &[&str]) -> Program {
    dir.greenwave(args.iter().copied()).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"))
}

#[test]
fn tests_and_their_reports_have_no_control_sequences() {
    let dir = test_dir();
    for kind in ["failed", "all", "none", "live", "agent"] {
        let part = if kind == "none" { "fail" } else { "SAID" };
        let args = ["test", "--no-cache", "--output", kind];
        check(kind, &output(&tests(&dir, &args).run().with_code(1)), part);
        let (finished, text) = on_terminal(tests(&dir, &args));
        finished.with_code(1);
        check_terminal(&format!("{kind} on a terminal"), &text, part);
    }
    let files =
        ["--junit", "../junit.xml", "--summary", "../summary.md", "--save-timings", "../timings.json"];
    let args: Vec<&str> = ["test", "--output", "all"].into_iter().chain(files).collect();
    let workflow = tests(&dir, &args).variable("GITHUB_ACTIONS", "true");
    check("workflow", &output(&workflow.run().with_code(1)), "::error");
    for (file, part) in [("junit.xml", "SAID"), ("summary.md", "fail"), ("timings.json", "fail")] {
        check(file, &dir.read(file), part);
    }
    let commands: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("JSON", &["test", "--format", "json", "--no-cache"][..]),
        ("verbose", &["test", "--verbose"]),
        ("dry run", &["test", "--dry-run"]),
        ("explanation", &["test", "--explain", "fail"]),
        ("reasons", &["test", "--why-not-cached"]),
        ("last failures", &["test", "--last-failed"]),
        ("single tests", &["test", "--per-test"]),
        ("strict", &["test", "--strict", "--keep-failures"]),
        ("unknown test", &["test", "\u{1b}[2J\u{202e}fail"]),
        ("history", &["history"]),
        ("history as JSON", &["history", "--format", "json"]),
    ]);
    for (channel, args) in commands {
        // Every test is cached or has failed, so no reason is shown.
        let part = if channel == "reasons" { "No selected test" } else { "fail" };
        check(channel, &output(&tests(&dir, args).run()), part);
    }
    check("doctor", &output(&tests(&dir, &["doctor"]).run()), "");
    check_test_tools(&dir);
}

fn check_test_tools(dir: &TestDir) {
    let mut client = Client::start(tests(dir, &["mcp"]));
    for (tool, arguments, part) in [
        ("run_tests", json!({}), "SAID"),
        ("list_tests", json!({}), "fail"),
        ("test_history", json!({}), "fail"),
        ("why_rerun", json!({"test": "fail \u{202e} \u{9b}2J"}), "fail"),
        ("why_rerun", json!({"test": "\u{1b}[2J\u{202e}"}), "unknown test"),
        ("run_tests", json!({"\u{1b}[2J": 1}), "unknown argument"),
    ] {
        let result = client.call(tool, &arguments);
        check(tool, result["content"][0]["text"].as_str().unwrap(), part);
        check_value(tool, &result["structuredContent"], &["name", "test"]);
    }
    for (address, part) in [
        ("greenwave://report", "fail"),
        ("greenwave://output/fail%20%E2%80%AE%20%C2%9B2J", "SAID"),
        ("greenwave://output/pass%20%E2%80%AE", "SAID"),
    ] {
        let read = client.request("resources/read", &json!({"uri": address}));
        check(address, read["result"]["contents"][0]["text"].as_str().unwrap_or_default(), part);
    }
}

/// An agent that writes a plan with an error, and then one with a title, a prompt and a test whose
/// names do something on a terminal.
const PLANNER: &str = r#"
[agents.planner]
kind = "command"
command = ["sh", "-c", '''
prompt=$(cat)
SAY; SAY >&2
mkdir tests; echo "test -f one.txt" > tests/one.sh; echo x > "tests/NAME"
case $prompt in
*'unknown dependency'*) after=; title=$(printf 'T\342\200\256 \302\2332J') ;;
*) after=$(printf 't\342\200\256wo\302\2332J'); title=$after ;;
esac
printf '[[features]]\nid = "one"\ntitle = "%s"\ndepends_on = ["%s"]\nprompt = "Do %s"\ntests = [{ command = ["sh", "tests/one.sh"] }]\n' \
  "$title" "$after" "$title" | sed 's/\[""\]/[]/' > greenwave-plan.toml
''']
"#;

#[test]
fn plans_that_agents_write_have_no_control_sequences() {
    let dir = TestDir::with_project();
    let agents = PLANNER.replace("SAY", SAY).replace("NAME", NAME);
    dir.write("agents.toml", format!("project = \"project\"\n{agents}"));
    let task = "Make \u{1b}]0;t\u{7}\u{202e}\u{9b}2J";
    let run = || {
        let _ = std::fs::remove_file(dir.path("plan.toml"));
        let _ = std::fs::remove_dir_all(dir.path("project/tests"));
        let options =
            ["--project", "project", "--config", "agents.toml", "--agent", "planner", "--no-metrics"];
        dir.greenwave(["plan", task].into_iter().chain(options))
    };
    let made = output(&run().run().with_code(0));
    check("plan", &made, "na\\u{202e}me");
    check("plan with an error", &made, "unknown dependency");
    check("file of the plan", &dir.read("plan.toml"), "one");
    let (finished, text) = on_terminal(run());
    finished.with_code(0);
    check_terminal("plan on a terminal", &text, "na\\u{202e}me");
    let shown = output(&dir.greenwave(["attempts", "greenwave-plan", "--project", "project"]).run());
    check("attempts at a plan", &shown, "");
    let shown = output(&dir.greenwave(["graph", "plan.toml"]).run().with_code(0));
    check("graph of the plan", &shown, "one");
}

#[test]
fn names_of_projects_and_features_have_no_control_sequences() {
    let project = "p\u{202e}\u{9b}2J\u{1b}[2J\u{1b}]0;t\u{7}";
    let dir = TestDir::empty().with(&format!("{project}/keep.txt"), "");
    let plan = shell_plan::plan(&[ShellFeature::new("one", "answer one.txt x", "test -f one.txt")]);
    let name = "p\\u202e\\u009b2J\\u001b[2J\\u001b]0;t\\u0007";
    dir.write("plan.toml", plan.replace("project = \"project\"", &format!("project = \"{name}\"")));
    dir.write(&format!("{project}/greenwave.toml"), "[[test]]\nname = \"t\"\ncommand = [\"true\"]\n");
    let shown = |args: &[&str]| output(&dir.greenwave(args.iter().copied()).run());
    check("run", &shown(&["run", "plan.toml", "--no-metrics"]), "one");
    let hostile = "\u{1b}[2J\u{202e}one\u{9b}2J";
    let named = format!("./{project}/{hostile}");
    for (args, part) in [
        (&["forget", "plan.toml", "one", hostile][..], "one"),
        (&["forget", &named, "one"], "cannot"),
        (&["clean", "plan.toml", "--state", "--dry-run"], "state"),
        (&["clean", "--project", project, "--state"], "state"),
        (&["clean", "--project", &named], ""),
        (&["cache", "stats", "--project", project], "records"),
        (&["cache", "verify", "--project", project], "record"),
        (&["cache", "warm", "--project", project], ""),
        (&["cache", "stats", "--project", &named], ""),
        (&["cache", "stats", "--set", hostile], ""),
        (&["cache", "stats", hostile], ""),
        (&["cache", "clear", "--project", project], ""),
        (&["cache", hostile], ""),
        (&[hostile], ""),
    ] {
        check(&args.join(" "), &shown(args), part);
        let (_, text) = on_terminal(dir.greenwave(args.iter().copied()));
        check_terminal(&format!("{} on a terminal", args.join(" ")), &text, "");
    }
    // A settings file of the project with an error.
    dir.write(&format!("{project}/greenwave.toml"), format!("[cache]\n{hostile} = 1\n\"{hostile}\" = 2\n"));
    for args in [&["cache", "stats", "--project", project][..], &["clean", "--project", project]] {
        check(&args.join(" "), &shown(args), "greenwave.toml");
    }
}

#[test]
fn commits_and_pull_requests_have_no_control_sequences() {
    let script = format!("{SAY}; {SAY} >&2; echo x > one.txt; echo x > \"{NAME}\"");
    let title = "title = \"T \\u202e \\u009b2J \\u001b]0;t\\u0007\\n\\nCost: forged\"";
    let one = ShellFeature::new("one", &script, &format!("{SAY}; test -f one.txt")).lines(title);
    let plan = format!("result = \"pr\"\n{}", shell_plan::plan(&[one]));
    let dir = TestDir::with_project().with("plan.toml", plan).with("bin/gh", GH);
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path("bin/gh"), permissions).unwrap();
    let git = |args: &[&str]| {
        let mut call = std::process::Command::new("git");
        call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args);
        let output = call.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for args in [
        &["init", "-q"][..],
        &["init", "-q", "--bare", "../remote"],
        &["remote", "add", "origin", "../remote"],
        &["add", "-A"],
        &["commit", "-qm", "start"],
    ] {
        git(args);
    }
    let path = format!("{}:{}", dir.path("bin").display(), std::env::var("PATH").unwrap());
    let run = dir.greenwave(["run", "plan.toml", "--no-metrics", "--create-pr"]).variable("PATH", path);
    check("run", &output(&run.run().with_code(0)), "na\\u{202e}me");
    let message = git(&["log", "--format=%B", "-1", "greenwave/plan"]);
    check("commit message", &message, "T \\u{202e} \\u{9b}2J");
    assert!(message.lines().next().unwrap().contains("Cost: forged"), "{message}");
    check("title and body of the pull request", &dir.read("log"), "T ");
    check("file of the pull request", &dir.read("project/.greenwave/pull-requests/plan.md"), "T ");
}

/// Plays `gh`, and logs its arguments and its standard input.
const GH: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")/..\"\n{ printf '%s\\n' \"$@\"; cat; } >> log\n\
                  echo https://github.com/o/r/pull/7\n";
