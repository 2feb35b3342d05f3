//! Attempts that ask for several answers and choose the best.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// Script of an agent that notes each request, and answers what `answers/AGENT-CANDIDATE` says.
const AGENT: &str = r#"echo "$1 $GREENWAVE_ATTEMPT $GREENWAVE_CANDIDATE" >> "$ROOT/requests"
sh "$ROOT/answers/$1-$GREENWAVE_CANDIDATE""#;

/// Returns a plan with the agents `a` and `b`, which are not confined, and one feature.
fn directory(feature: &str, answers: &[(&str, &str)]) -> TestDir {
    let agent = |name: &str| {
        format!(
            "[agents.{name}]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", '''{AGENT}''', \"x\", \"{name}\"]\n"
        )
    };
    let plan = format!(
        "project = \"project\"\nconfine = \"off\"\n{}{}\n[[features]]\nid = \"f\"\nprompt = \"Write f.\"\n\
         agent = \"a\"\nattempts = 2\n{feature}\n[[features.tests]]\n\
         command = [\"sh\", \"-c\", \"grep -q right f.txt\"]\n",
        agent("a"),
        agent("b")
    );
    let dir = TestDir::empty().with("plan.toml", plan).with("project/a.txt", "a\n");
    answers.iter().fold(dir, |dir, (name, script)| dir.with(&format!("answers/{name}"), script))
}

fn run(dir: &TestDir) -> Program {
    let root = dir.path("").display().to_string();
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json"];
    dir.greenwave(args).within(&dir.path("")).variable("ROOT", &root)
}

/// Returns the requests that the agents have got, sorted.
fn requests(dir: &TestDir) -> Vec<String> {
    let mut lines: Vec<String> = dir.read("requests").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn chosen(finished: &Finished) -> Vec<Value> {
    finished.events().into_iter().filter(|event| event["event"] == "chosen").collect()
}

/// Returns the outcomes and reasons of the stored attempts.
fn attempts(dir: &TestDir) -> Vec<(String, String)> {
    let listed = dir.greenwave(["attempts", "plan.toml", "f", "--format", "json"]).within(&dir.path(""));
    let listed = listed.run().with_code(0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed: Vec<Value> = listed.events();
    listed.iter().map(|attempt| (text(&attempt["outcome"]), text(&attempt["reason"]))).collect()
}

const LONG: &str = "printf 'right\\n1\\n2\\n3\\n' > f.txt";
const SHORT: &str = "echo right > f.txt";
const WRONG: &str = "echo wrong > f.txt";

#[test]
fn the_smallest_change_that_passes_is_chosen_and_the_others_are_kept() {
    let answers = [("a-1", LONG), ("a-2", WRONG), ("a-3", SHORT)];
    let dir = directory("candidates = 3", &answers);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(dir.read("project/f.txt"), "right\n");
    assert_eq!(requests(&dir), ["a 1 1", "a 1 2", "a 1 3"]);
    let chosen = chosen(&finished);
    assert_eq!((&chosen[0]["candidate"], &chosen[0]["of"], chosen.len()), (&json!(3), &json!(3), 1));
    assert_eq!(chosen[0]["reason"], "its tests pass with the smallest change (1 line)");
    let kept = attempts(&dir);
    let outcomes: Vec<&str> = kept.iter().map(|(outcome, _)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["not chosen", "not chosen", "passed"]);
    assert_eq!(kept[0].1, "passed; the change of candidate 3 has 1 line, and this one 4");
    assert_eq!(kept[1].1, "test `f` failed with exit code 1");
    // The copies of the candidates are removed with that of the feature.
    let events = finished.events();
    let report = &events.last().unwrap()["features"][0];
    assert_eq!((&report["attempts"], &report["phase"]), (&json!(1), &json!("green")));
}

#[test]
fn candidates_are_asked_at_the_same_time_and_by_different_agents() {
    // Each answers only once the other was asked.
    let wait = |own: &str, other: &str, then: &str| {
        format!("touch $ROOT/{own}; until test -e $ROOT/{other}; do sleep 0.02; done; {then}")
    };
    let (one, two) = (wait("a", "b", WRONG), wait("b", "a", SHORT));
    let dir = directory("candidates = [\"a\", \"b\"]", &[("a-1", &one), ("b-2", &two)]);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), ["a 1 1", "b 1 2"]);
    let chosen = chosen(&finished);
    assert_eq!((&chosen[0]["agent"], &chosen[0]["reason"]), (&json!("b"), &json!("only its tests pass")));
}

#[test]
fn guards_decide_between_answers_that_pass() {
    let breaks = "echo right > f.txt; rm a.txt";
    let dir = directory("candidates = 2", &[("a-1", breaks), ("a-2", LONG)]);
    let guard = "[[guards]]\nname = \"a\"\ncommand = [\"test\", \"-e\", \"a.txt\"]\n";
    let plan = format!("{}\n{guard}", dir.read("plan.toml"));
    let dir = dir.with("plan.toml", plan);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(dir.read("project/f.txt"), "right\n1\n2\n3\n");
    assert_eq!(chosen(&finished)[0]["reason"], "its tests pass, and it breaks the fewest guards");
    assert_eq!(attempts(&dir)[0].1, "passed, and broke 1 guard; candidate 2 broke 0");
}

#[test]
fn an_attempt_without_a_passing_answer_goes_on_with_the_closest() {
    let second = format!("if test $GREENWAVE_ATTEMPT = 1; then {WRONG}; else {SHORT}; fi");
    let dir = directory("candidates = 2", &[("a-1", "exit 1"), ("a-2", &second)]);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), ["a 1 1", "a 1 2", "a 2 1", "a 2 2"]);
    let reasons: Vec<Value> = chosen(&finished).into_iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, ["no other answer can be used", "only its tests pass"]);
    let outcomes: Vec<String> = attempts(&dir).into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["aborted", "failed", "aborted", "passed"]);
}

#[test]
fn the_setting_is_the_default_of_features() {
    let dir = directory("", &[("a-1", WRONG), ("a-2", SHORT)])
        .with("project/greenwave.toml", "[run]\ncandidates = 2\n");
    let finished = run(&dir).run().with_code(0);
    assert_eq!(chosen(&finished)[0]["candidate"], json!(2));
    let checked = dir.greenwave(["run", "--check", "plan.toml"]).within(&dir.path("")).run().with_code(0);
    assert!(checked.stdout.contains("f asks for 2 answers: `a`, `a`"), "{}", checked.describe());
    for (value, code) in [("0", 2), ("17", 2), ("16", 0)] {
        let set = format!("run.candidates={value}");
        let check = dir.greenwave(["run", "--check", "plan.toml", "--set", &set]).within(&dir.path(""));
        check.run().with_code(code);
    }
    let dir = directory("candidates = [\"a\", \"c\"]", &[]);
    let refused = dir.greenwave(["run", "--check", "plan.toml"]).within(&dir.path("")).run().with_code(2);
    assert!(refused.stderr.contains("unknown agent `c`"), "{}", refused.describe());
}

#[test]
fn a_killed_run_asks_no_candidate_twice() {
    // The second candidate waits until the run was killed once.
    let second = format!("until test -e $ROOT/killed; do sleep 0.02; done; {SHORT}");
    let dir = directory("candidates = 2", &[("a-1", LONG), ("a-2", &second)]);
    let mut running = run(&dir).start();
    while let Some(line) = running.line() {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "candidate" {
            assert_eq!((&event["candidate"], &event["status"]), (&json!(1), &json!("answered")));
            break;
        }
    }
    running.signal(Signal::KILL);
    running.finish();
    fs::write(dir.path("killed"), "").unwrap();
    let finished = run(&dir).run().with_code(0);
    // The request in flight is sent again, and the one that was answered is not.
    assert_eq!(requests(&dir), ["a 1 1", "a 1 2", "a 1 2"]);
    assert_eq!(chosen(&finished)[0]["candidate"], json!(2));
    assert_eq!(dir.read("project/f.txt"), "right\n");
}

#[test]
fn the_usage_of_all_candidates_counts() {
    let says = |text: &str| {
        let event = json!({"type": "result", "subtype": "success", "is_error": false, "result": "done",
            "total_cost_usd": 0.4, "usage": {"input_tokens": 10, "output_tokens": 5}});
        format!("{text}; echo '{event}'")
    };
    let (one, two) = (says(WRONG), says(SHORT));
    let dir = directory("candidates = 2", &[("a-1", &one), ("a-2", &two)]);
    let plan = dir.read("plan.toml").replacen("kind = \"command\"", "kind = \"claude\"", 1);
    let dir = dir.with("plan.toml", plan);
    let finished = run(&dir).run().with_code(0);
    let events = finished.events();
    assert_eq!(events.last().unwrap()["features"][0]["usage"]["cost_usd"], json!(0.8));
}
