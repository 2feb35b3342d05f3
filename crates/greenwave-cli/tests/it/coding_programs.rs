//! Runs with agents that are coding programs, played by a script with the output of Claude Code.
//! `cargo xtask live` runs the real ones.

use std::os::unix::fs::PermissionsExt;

use crate::program::{Finished, Program};
use crate::shell_plan::Report;
use crate::test_dir::TestDir;

/// Works by the feature, and writes its arguments to the file in `$LOG`, if it can.
const CLAUDE: &str = r#"#!/bin/sh
{ echo "$GREENWAVE_FEATURE $GREENWAVE_ATTEMPT $*" >> "$LOG"; } 2>/dev/null
prompt=$(cat)
say() { printf '{"type":"assistant","message":{"content":[{"type":"text","text":"%s"}]}}\n' "$1"; }
end() { printf '{"type":"result","subtype":"success","is_error":%s,"result":"%s","total_cost_usd":0.25,"usage":{"input_tokens":1000,"output_tokens":10}}\n' "$1" "$2"; exit "$3"; }
case "$*" in *"--resume lost"*)
    echo '{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["No conversation"]}'
    exit 1 ;;
esac
session=session-1; [ "$GREENWAVE_FEATURE" = lost ] && session=lost
printf '{"type":"system","subtype":"init","session_id":"%s"}\n' "$session"
say 'Writing.\n```text path=\"quoted.txt\"\nno\n```'
case "$GREENWAVE_FEATURE $GREENWAVE_ATTEMPT" in
    refused*) end true 'Unknown model' 0 ;;
    login*) end true 'Invalid API key · Please run /login' 1 ;;
    *1) echo wrong > "$GREENWAVE_FEATURE.txt" ;;
    *) echo right > "$GREENWAVE_FEATURE.txt"; echo "$prompt" | grep -q 'attempt 2 of 2' || exit 3 ;;
esac
# The result counts, not the exit code.
end false Done. 1
"#;

/// Runs a plan with these features, whose files must be right.
fn run(dir: &TestDir, agent: &str, features: &[&str]) -> Finished {
    prepare(dir, agent, features).run()
}

/// Runs a plan with one feature at a time.
fn run_in_order(dir: &TestDir, agent: &str, features: &[&str]) -> Finished {
    prepare(dir, agent, features).variable("GREENWAVE_PARALLEL_FEATURES", "1").run()
}

fn prepare(dir: &TestDir, agent: &str, features: &[&str]) -> Program {
    prepare_with(dir, agent, features, &[])
}

fn prepare_with(dir: &TestDir, agent: &str, features: &[&str], options: &[&str]) -> Program {
    let mut plan = format!("project = \"project\"\n[agents.coder]\nkind = \"claude\"\n{agent}\n");
    for feature in features {
        plan.push_str(&format!(
            "[[features]]\nid = \"{feature}\"\nprompt = \"Do it.\"\nagent = \"coder\"\nattempts = 2\n\
             [[features.tests]]\ncommand = [\"grep\", \"-q\", \"right\", \"{feature}.txt\"]\n"
        ));
    }
    std::fs::write(dir.path("plan.toml"), plan).unwrap();
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json"];
    dir.greenwave(args.iter().chain(options).copied()).within(&dir.path("")).variable("PATH", path(dir))
}

fn path(dir: &TestDir) -> String {
    format!("{}:{}", dir.path("bin").display(), std::env::var("PATH").unwrap())
}

fn directory() -> TestDir {
    let dir = TestDir::empty().with("bin/claude", CLAUDE).with("project/README", "");
    for feature in ["kept", "lost", "refused"] {
        let path = dir.path("project").join(format!("{feature}.txt"));
        std::fs::write(path, "none\n").unwrap();
    }
    std::fs::set_permissions(dir.path("bin/claude"), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn attempts_continue_their_session_and_a_lost_session_costs_nothing() {
    let dir = directory();
    let log = dir.path("log");
    let agent = format!("confine = \"off\"\nmodel = \"small\"\nenv = {{ LOG = {log:?} }}");
    let finished = run(&dir, &agent, &["kept", "lost"]).with_code(0);
    let report = Report::of(&finished);
    assert_eq!(report.phases(), [("kept", "green"), ("lost", "green")]);
    assert!(!dir.path("project/quoted.txt").exists(), "files in messages are not taken");
    let mut calls: Vec<String> = std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
    calls.sort_unstable();
    let arguments =
        "--print --output-format stream-json --verbose --permission-mode acceptEdits --model small";
    // The calls of one attempt are in order of their arguments.
    assert_eq!(
        calls,
        [
            format!("kept 1 {arguments}"),
            format!("kept 2 --resume session-1 {arguments}"),
            format!("lost 1 {arguments}"),
            format!("lost 2 {arguments}"),
            format!("lost 2 --resume lost {arguments}"),
        ]
        .map(|call| call)
    );
    assert_eq!(report.feature("kept")["usage"]["cost_usd"], 0.5);
    assert_eq!(report.feature("lost")["usage"]["input_tokens"], 2000);
    let events = finished.events();
    assert_eq!(events.last().unwrap()["totals"]["usage"]["cost_usd"], 1.0);
}

#[test]
fn a_reported_failure_rejects_the_attempt_whatever_the_exit_code() {
    let dir = directory();
    let report = Report::of(&run(&dir, "env = { LOG = \"/dev/null\" }", &["refused"]).with_code(1));
    assert_eq!(report.phases(), [("refused", "failed")]);
    for reason in report.rejections("refused") {
        assert!(reason.contains("agent command `claude` failed: Unknown model"), "{reason}");
    }
}

/// Another attempt would fail in the same way. The command of `notify` runs once for two features.
#[test]
fn a_program_without_a_login_needs_the_user() {
    let dir = directory();
    let notify = format!("notify = [\"sh\", \"-c\", \"cat >> '{}'\"]", dir.path("notified").display());
    dir.write("project/login.txt", "none\n");
    dir.write("project/login-2.txt", "none\n");
    prepare(&dir, "env = { LOG = \"/dev/null\" }", &["login", "login-2"]);
    dir.write("plan.toml", format!("{notify}\n{}", dir.read("plan.toml")));
    let finished = dir.plan().variable("PATH", path(&dir)).run().with_code(1);
    let report = Report::of(&finished);
    assert_eq!((report.phases(), report.requests()), (vec![("login", "failed"), ("login-2", "failed")], 2));
    let reason = "agent `coder` needs a login: Invalid API key · Please run /login";
    assert_eq!(report.reason("login"), reason);
    assert_eq!((report.count("needs_you"), report.rejections("login")), (2, vec![]));
    let notified: serde_json::Value = serde_json::from_str(&dir.read("notified")).unwrap();
    assert_eq!((&notified["kind"], &notified["reason"]), (&"login".into(), &reason.into()));
    assert_eq!(notified["action"], "log in with `claude` and `/login`");
}

#[test]
fn mistakes_in_an_agent_are_shown_where_they_are() {
    for (agent, expected) in [
        ("edits = \"answer\"", "unknown key `edits`"),
        ("model = 5", "expected a string"),
        (
            "env = { MY_API_KEY = \"sk-1234567890\" }",
            "invalid value `\"MY_API_KEY\"` for `env` in agent `coder`: expected no credentials",
        ),
        (
            "env = { \"A=B\" = \"c\" }",
            "invalid value `\"A=B\"` for `env` in agent `coder`: expected names without `=`",
        ),
    ] {
        let finished = run(&directory(), agent, &["kept"]).with_code(2);
        assert!(finished.describe().contains(expected), "{agent}: {}", finished.describe());
    }
    let finished = run(&directory(), "", &["kept"]);
    assert_ne!(finished.describe(), "");
}

/// Each response costs 0.25 and reads and writes 1,010 tokens. Every feature needs two.
#[test]
fn a_request_that_would_pass_a_limit_is_not_sent_and_the_next_run_continues() {
    for (limit, key, phases) in [
        ("usd = 0.75", "budget.usd", ["green", "failed"]),
        ("feature_usd = 0.4", "budget.feature_usd", ["failed", "failed"]),
        ("tokens = 3500", "budget.tokens", ["green", "failed"]),
        ("feature_tokens = 2000", "budget.feature_tokens", ["failed", "failed"]),
        ("usd = 1\ntokens = 4040", "", ["green", "green"]),
    ] {
        let dir = directory();
        let log = dir.path("log");
        let agent = |budget: &str| format!("confine = \"off\"\nenv = {{ LOG = {log:?} }}\n{budget}");
        let requests = || std::fs::read_to_string(&log).unwrap().lines().count();
        std::fs::write(dir.path("project/other.txt"), "none\n").unwrap();
        let features = ["kept", "other"];
        let finished = run_in_order(&dir, &agent(&format!("[budget]\n{limit}")), &features);
        let report = Report::of(&finished);
        let found: Vec<_> = report.phases().into_iter().map(|(_, phase)| phase).collect();
        assert_eq!(found, phases, "{limit}");
        let failed = phases.iter().filter(|phase| **phase == "failed").count();
        assert_eq!((requests(), report.count("needs_you")), (4 - failed, failed), "{limit}");
        if failed > 0 {
            let reason = report.feature("other")["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains(key) && reason.contains("no request was sent"), "{reason}");
        }
        let finished = run_in_order(&dir, &agent(""), &features).with_code(0);
        assert_eq!(Report::of(&finished).phases().len(), 2);
        assert_eq!(requests(), 4, "{limit}: no attempt is lost or repeated");
    }
}

#[test]
fn the_command_line_replaces_the_budget_of_the_plan() {
    for (budget, limit, phases) in [("0.75", 2, ["green", "failed"]), ("2", 0, ["green", "green"])] {
        let dir = directory();
        std::fs::write(dir.path("project/other.txt"), "none\n").unwrap();
        let agent = format!("confine = \"off\"\nenv = {{ LOG = \"/dev/null\" }}\n[budget]\nusd = {limit}");
        let program = prepare_with(&dir, &agent, &["kept", "other"], &["--budget", budget]);
        let report = Report::of(&program.variable("GREENWAVE_PARALLEL_FEATURES", "1").run());
        let found: Vec<_> = report.phases().into_iter().map(|(_, phase)| phase).collect();
        assert_eq!(found, phases, "{budget}");
    }
}

#[test]
fn an_agent_without_a_cost_is_named_unless_it_has_prices() {
    for (prices, is_named, cost) in
        [("", true, None), ("prices = { input = 100, output = 1000 }", false, Some(0.22))]
    {
        let dir = directory();
        let script = CLAUDE.replace("\"total_cost_usd\":0.25,", "");
        std::fs::write(dir.path("bin/claude"), script).unwrap();
        let agent =
            format!("confine = \"off\"\nenv = {{ LOG = \"/dev/null\" }}\n{prices}\n[budget]\nusd = 9");
        let finished = run(&dir, &agent, &["kept"]).with_code(0);
        let notes: Vec<_> =
            finished.events().into_iter().filter(|it| it["code"] == "usage-unknown").collect();
        assert_eq!(notes.len(), usize::from(is_named), "{notes:?}");
        let found = Report::of(&finished).feature("kept")["usage"]["cost_usd"].as_f64();
        assert_eq!(found, cost);
    }
}

/// The first attempt fails, and the second one passes.
#[test]
fn attempts_have_a_duration_and_a_cost_and_can_be_compared() {
    let dir = directory();
    run(&dir, "env = { LOG = \"/dev/null\" }", &["kept"]).with_code(0);
    let attempts =
        |arguments: &[&str]| dir.greenwave(["attempts", "plan.toml"].iter().chain(arguments).copied()).run();
    let list = attempts(&[]).with_code(0).stdout;
    for (line, outcome) in list.lines().zip(["failed", "passed"]) {
        let parts: Vec<&str> = line.split("  ").collect();
        assert_eq!((parts[0], parts[2], parts[3], parts[5]), ("kept", outcome, "1 file", "$0.25"), "{line}");
        assert!(parts[4].ends_with(" ms") || parts[4].ends_with(" s"), "{line}");
    }
    let json = attempts(&["kept", "2", "--format", "json"]).with_code(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["seconds"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!((&json["usage"]["input_tokens"], &json["number"]), (&1000.into(), &2.into()));

    let difference = attempts(&["kept", "--diff", "1", "2"]).with_code(0).stdout;
    assert!(difference.contains("-wrong\n+right\n") && !difference.contains("none"), "{difference}");
    let same = attempts(&["kept", "--diff", "2", "2"]).with_code(0).stdout;
    assert_eq!(same, "The two attempts have the same files\n");
    let missing = attempts(&["kept", "--diff", "1", "3"]).with_code(2).stderr;
    assert!(missing.contains("cannot find attempt 3 of feature `kept`"), "{missing}");
    let missing = attempts(&["--diff", "1", "2"]).with_code(2).stderr;
    assert!(missing.contains("missing argument `FEATURE`"), "{missing}");

    std::fs::create_dir(dir.path("tmp")).unwrap();
    let open = dir.greenwave(["attempts", "plan.toml", "kept", "1", "--open"]);
    let opened = open.variable("TMPDIR", dir.path("tmp")).run().with_code(0).stdout;
    let opened = std::path::Path::new(opened.trim());
    assert!(opened.starts_with(dir.path("tmp")), "{opened:?}");
    let content = |path: &str| std::fs::read_to_string(opened.join(path).join("kept.txt")).unwrap();
    assert_eq!((content("before").as_str(), content("after").as_str()), ("none\n", "wrong\n"));
    assert_eq!(opened.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_recorded_run_is_replayed_without_the_program() {
    let dir = directory();
    let log = dir.path("log");
    let agent = format!("confine = \"off\"\nenv = {{ LOG = {log:?} }}");
    let recording = dir.path("recording").display().to_string();
    let live = prepare_with(&dir, &agent, &["kept", "lost"], &["--record", &recording]).run().with_code(0);
    let calls = std::fs::read_to_string(&log).unwrap().lines().count();
    // The same project again, without the program and without the records of the first run.
    std::fs::remove_file(dir.path("bin/claude")).unwrap();
    let again = |features: &[&str]| {
        for feature in ["kept", "lost"] {
            dir.write(&format!("project/{feature}.txt"), "none\n");
        }
        let _ = std::fs::remove_dir_all(dir.path("project/.greenwave"));
        prepare_with(&dir, &agent, features, &["--replay", &recording]).run()
    };
    let replayed = again(&["kept", "lost"]).with_code(0);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), calls, "nothing was started");
    let (live, replayed) = (Report::of(&live), Report::of(&replayed));
    assert_eq!(live.phases(), replayed.phases());
    for feature in ["kept", "lost"] {
        assert_eq!(dir.read(&format!("project/{feature}.txt")), "right\n");
        for key in ["attempts", "usage"] {
            let (before, after) = (&live.feature(feature)[key], &replayed.feature(feature)[key]);
            assert_eq!(strip_time(before), strip_time(after), "{key}");
        }
    }
    let finished = again(&["kept", "other"]).with_code(1);
    let reason = Report::of(&finished).reason("other").to_owned();
    assert!(reason.contains("no recorded response of program claude fits the request"), "{reason}");
    assert!(reason.contains("instead of"), "{reason}");
}

/// Returns a value without durations.
fn strip_time(value: &serde_json::Value) -> serde_json::Value {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !key.contains("ms") && !key.contains("seconds"));
    }
    value
}
