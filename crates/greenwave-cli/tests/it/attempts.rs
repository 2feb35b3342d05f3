//! Attempts that continue in the next run, agents that have to wait, and features that are done
//! elsewhere.

use std::fs;

use rustix::process::Signal;

use crate::program::until;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Agent that counts its requests in `count` beside the plan, and stores each prompt there.
fn counting(dir: &TestDir, script: &str) -> String {
    let base = dir.path("");
    format!(
        "n=$(($(cat '{0}count' 2>/dev/null || echo 0)+1)); echo $n > '{0}count'; \
         cat > '{0}prompt-'$n; {script}",
        base.display()
    )
}

fn write_plan(dir: &TestDir, features: &[ShellFeature]) {
    dir.write("plan.toml", shell_plan::unconfined(features));
}

fn requests(dir: &TestDir) -> u32 {
    fs::read_to_string(dir.path("count")).map_or(0, |text| text.trim().parse().unwrap())
}

/// Interrupts a run at its third attempt. The next run asks for the third attempt, with the
/// feedback of the second.
#[test]
fn an_interrupted_attempt_is_requested_again() {
    for signal in [Signal::INT, Signal::KILL] {
        let dir = TestDir::with_project();
        let waits = format!("[ $n = 3 ] && : > '{}' && sleep 50; ", dir.path("third").display());
        let script = counting(&dir, &format!("{waits} answer one.txt \"no $n\""));
        write_plan(
            &dir,
            &[ShellFeature::new("one", &script, "cat one.txt; grep -q 'no 4' one.txt").attempts(4)],
        );
        let mut running = dir.plan().start();
        until("the third attempt", || dir.path("third").exists());
        running.signal(signal);
        running.wait();
        let report = Report::of(&dir.run_plan().with_code(0));
        assert_eq!(requests(&dir), 4);
        let prompt = dir.read("prompt-4");
        assert!(prompt.contains("This is attempt 3 of 4") && prompt.contains("no 2"), "{prompt}");
        assert_eq!(report.feature("one")["attempts"], 3);
    }
}

/// A new run begins a new round once the attempts are used up, and the numbering goes on.
#[test]
fn used_up_attempts_begin_a_new_round() {
    let dir = TestDir::with_project();
    let script = counting(&dir, "answer one.txt \"no $n\"");
    write_plan(&dir, &[ShellFeature::new("one", &script, "cat one.txt; grep -q 'no 3' one.txt").attempts(2)]);
    dir.run_plan().with_code(1);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((requests(&dir), report.feature("one")["attempts"].as_u64()), (3, Some(3)));
    let prompt = dir.read("prompt-3");
    assert!(prompt.contains("This is attempt 3 of 4") && prompt.contains("no 2"), "{prompt}");
}

/// A run is killed while it tests an answer. The next run tests the answer without a request.
#[test]
fn a_stored_answer_is_tested_without_a_request() {
    let dir = TestDir::with_project();
    let script = counting(&dir, "answer one.txt x");
    let mark = dir.path("testing");
    let test =
        format!("test -f one.txt || exit 1; test -e '{0}' && exit 0; : > '{0}'; sleep 50", mark.display());
    write_plan(&dir, &[ShellFeature::new("one", &script, &test)]);
    let mut running = dir.plan().start();
    until("the answer is tested", || mark.exists());
    running.signal(Signal::KILL);
    running.wait();
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((requests(&dir), report.requests()), (1, 0));
    assert_eq!(dir.read("project/one.txt"), "x\n");
}

/// The agent answers with the same files again, so a third attempt is pointless.
#[test]
fn an_answer_that_repeats_itself_stops_the_feature() {
    let dir = TestDir::with_project();
    let feature = ShellFeature::new("one", "answer one.txt same", "grep -q other one.txt").attempts(5);
    write_plan(&dir, &[feature]);
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(report.requests(), 2);
    assert!(report.reason("one").contains("the last two wrote the same code"), "{}", report.reason("one"));
}

/// So is one if an agent that edits files itself leaves them as they were refused.
#[test]
fn an_agent_that_changes_nothing_more_stops_the_feature() {
    for script in ["echo same > one.txt", "test -f one.txt || echo same > one.txt; echo It is done."] {
        let dir = TestDir::with_project();
        write_plan(&dir, &[ShellFeature::new("one", script, "grep -q other one.txt").attempts(5)]);
        let report = Report::of(&dir.run_plan().with_code(1));
        assert_eq!(report.requests(), 2, "{script}");
        assert!(
            report.reason("one").contains("the last two wrote the same code"),
            "{}",
            report.reason("one")
        );
    }
}

/// A run compares answers with the last one of an earlier run, which may have been killed.
#[test]
fn an_answer_that_an_earlier_run_refused_stops_the_feature() {
    for is_killed in [false, true] {
        let dir = TestDir::with_project();
        let hang = format!("[ $n = 2 ] && : > '{}' && sleep 50; ", dir.path("second").display());
        let script = counting(&dir, &format!("{} answer one.txt same", if is_killed { &hang } else { "" }));
        let feature =
            |attempts| ShellFeature::new("one", &script, "grep -q other one.txt").attempts(attempts);
        if is_killed {
            write_plan(&dir, &[feature(5)]);
            let mut running = dir.plan().start();
            until("the second attempt", || dir.path("second").exists());
            running.signal(Signal::KILL);
            running.wait();
        } else {
            write_plan(&dir, &[feature(1)]);
            dir.run_plan().with_code(1);
            write_plan(&dir, &[feature(5)]);
        }
        let report = Report::of(&dir.run_plan().with_code(1));
        assert_eq!(report.requests(), 1);
        let reason = report.reason("one");
        assert!(reason.contains("the last two wrote the same code"), "{reason}");
    }
}

/// The test fails in another way each time, so the code alone may not be to blame.
#[test]
fn the_same_answer_with_another_failure_is_tried_again() {
    let dir = TestDir::with_project();
    let test = "test -f one.txt || exit 9; mkdir -p ../../../runs; touch ../../../runs/$$; \
                exit $(ls ../../../runs | wc -l)";
    write_plan(&dir, &[ShellFeature::new("one", "answer one.txt same", test).attempts(4)]);
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(report.requests(), 4);
}

/// Three features share an agent whose first requests are refused or do not reach its provider.
/// They wait and use up no attempt.
#[test]
fn a_rate_limit_costs_no_attempt() {
    let dir = TestDir::with_project();
    let script = format!(
        "mkdir '{0}1' 2>/dev/null && \
         {{ echo 'API Error: 429 rate_limit_error: retry-after: 1' >&2; exit 1; }}; \
         mkdir '{0}2' 2>/dev/null && \
         {{ echo 'Error: connect ECONNREFUSED 127.0.0.1:443' >&2; exit 1; }}; \
         f=$(basename \"$PWD\"); answer $f.txt x",
        dir.path("limited").display()
    );
    let feature = |id: &str| ShellFeature::new(id, &script, &format!("test -f {id}.txt"));
    write_plan(&dir, &[feature("one"), feature("two"), feature("three")]);
    let shared = dir.read("plan.toml").replace("agent = \"two\"", "agent = \"one\"");
    dir.write("plan.toml", shared.replace("agent = \"three\"", "agent = \"one\""));
    let finished = dir.run_plan().with_code(0);
    let report = Report::of(&finished);
    assert!(report.phases().iter().all(|(_, phase)| *phase == "green"));
    let waits = finished.events().iter().filter(|event| event["event"] == "waiting").count();
    assert!(waits > 0 && report.requests() == 5, "{waits} waits, {} requests", report.requests());
    for id in ["one", "two", "three"] {
        assert_eq!(
            (report.feature(id)["attempts"].as_u64(), report.rejections(id).len()),
            (Some(1), 0),
            "{id}"
        );
    }
}

#[test]
fn a_wait_for_an_agent_is_bounded_and_can_be_configured() {
    let dir = TestDir::with_project();
    let feature = ShellFeature::new("one", "echo 'come back' >&2; exit 29", "test -f one.txt").attempts(2);
    write_plan(
        &dir,
        &[feature.agent("wait_max = \"2s\"\nwait_on = { exit = [29], output = [\"come back\"] }")],
    );
    let report = Report::of(&dir.run_plan().with_code(1));
    let reason = report.reason("one");
    assert!(reason.contains("wait_max") && reason.contains("come back"), "{reason}");
    assert_eq!(report.rejections("one"), [""; 0]);
    let feature = ShellFeature::new("one", "echo 'rate limit' >&2; exit 1", "test -f one.txt");
    write_plan(&dir, &[feature.agent("wait_on = { exit = [], output = [] }")]);
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(report.rejections("one").len(), 1, "an agent that never waits");
}

/// A stop ends the wait for an agent at once.
#[test]
fn a_signal_ends_the_wait_for_an_agent() {
    let dir = TestDir::with_project();
    let script = "echo 'rate limit: try again in 10 minutes' >&2; exit 1";
    write_plan(&dir, &[ShellFeature::new("one", script, "test -f one.txt")]);
    let mut running = dir.plan().start();
    running.read_until(r#""event":"waiting""#);
    running.signal(Signal::INT);
    assert_eq!(running.finish().status.code(), Some(130));
}

/// A fresh copy of a project continues with the features that an agent wrote elsewhere.
#[test]
fn features_that_are_done_elsewhere_are_green() {
    let dir = TestDir::with_project();
    let feature =
        |id: &str| ShellFeature::new(id, &format!("answer {id}.txt x"), &format!("test -f {id}.txt"));
    write_plan(&dir, &[feature("one"), feature("two").after("one")]);
    dir.run_plan().with_code(0);
    fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    write_plan(&dir, &[feature("one"), feature("two").after("one"), feature("three").after("two")]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(report.requests(), 1);
    assert_eq!(report.phases(), [("one", "green"), ("two", "green"), ("three", "green")]);
}

/// Without a receipt, only the user can say that the code is right.
#[test]
fn adopted_features_are_green_if_their_tests_pass() {
    let dir = TestDir::with_project().with("project/one.txt", "by hand\n");
    let feature =
        |id: &str| ShellFeature::new(id, &format!("answer {id}.txt x"), &format!("test -f {id}.txt"));
    write_plan(&dir, &[feature("one"), feature("two").after("one")]);
    let report = Report::of(&dir.run_plan().with_code(1));
    let hint = report.feature("one")["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("--adopt"), "{hint}");
    let run = |adopt: &[&str]| {
        let args = ["run", "plan.toml", "--no-metrics", "--format", "json"];
        dir.greenwave(args.into_iter().chain(adopt.iter().copied())).run()
    };
    let wrong = run(&["--adopt", "onne"]).with_code(2);
    assert!(wrong.stderr.contains("unknown feature `onne`; did you mean `one`?"), "{}", wrong.stderr);
    let report = Report::of(&run(&["--adopt", "one"]).with_code(0));
    assert_eq!(report.requests(), 1, "for the second feature");
    assert_eq!(dir.read("project/one.txt"), "by hand\n");
    assert_eq!(Report::of(&dir.run_plan().with_code(0)).requests(), 0, "it stays green");
}

#[test]
fn a_renamed_feature_stays_green() {
    let dir = TestDir::with_project();
    let feature = |id: &str| ShellFeature::new(id, "answer one.txt x", "test -f one.txt");
    write_plan(&dir, &[feature("one")]);
    dir.run_plan().with_code(0);
    // Without receipts, only the journal has the record.
    fs::remove_dir_all(dir.path(STATE).join("greenwave/green")).unwrap();
    write_plan(&dir, &[feature("uno").lines("was = \"one\"")]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.phases(), report.requests()), (vec![("uno", "green")], 0));
    let other = feature("one").lines("was = \"uno\"");
    write_plan(&dir, &[other, feature("uno")]);
    assert!(dir.run_plan().with_code(2).stderr.contains("for `was` in feature `one`"));
}

/// Two plans of one project have a feature with the same id and other tests.
#[test]
fn plans_with_equal_ids_keep_their_records_apart() {
    let dir = TestDir::with_project();
    let feature = |file: &str| {
        let (script, test) = (format!("answer {file}.txt x"), format!("test -f {file}.txt"));
        ShellFeature::new("one", &script, &test)
    };
    let run = |file: &str, code: i32| {
        write_plan(&dir, &[feature(file)]);
        fs::rename(dir.path("plan.toml"), dir.path(&format!("{file}.toml"))).unwrap();
        let plan = format!("{file}.toml");
        let finished = dir.greenwave(["run", &plan, "--no-metrics", "--format", "json"]).run();
        // Without receipts, only the journal has the record.
        let _ = fs::remove_dir_all(dir.path(STATE).join("greenwave/green"));
        Report::of(&finished.with_code(code)).requests()
    };
    assert_eq!((run("a", 0), run("b", 0)), (1, 1));
    assert_eq!((run("a", 0), run("b", 0)), (0, 0), "both stay green");
    // The records of attempts are separate as well.
    write_plan(&dir, &[ShellFeature::new("one", "answer c.txt x", "false")]);
    dir.run_plan().with_code(1);
    assert_eq!(run("a", 0), 0);
    let forget = |plan: &str| dir.greenwave(["forget", plan, "one"]).run().with_code(0).stdout;
    let forgotten = forget("b.toml");
    assert_eq!(forgotten, "one: no longer green, attempts start again from 1 (were at 2)\n");
    assert_eq!(forget("a.toml"), "one: nothing is recorded\n");
}

#[test]
fn a_forgotten_feature_starts_again() {
    let dir = TestDir::with_project();
    let script = counting(&dir, "answer one.txt $n");
    let feature = || ShellFeature::new("one", &script, "cat one.txt; grep -q 2 one.txt");
    write_plan(&dir, &[feature()]);
    dir.run_plan().with_code(1);
    let forget = |id: &str| dir.greenwave(["forget", "plan.toml", id]).run().with_code(0).stdout;
    assert_eq!(forget("one"), "one: attempts start again from 1 (were at 2)\n");
    assert_eq!(forget("one"), "one: nothing is recorded\n");
    assert_eq!(forget("on"), "on: nothing is recorded; did you mean `one`?\n");
    dir.run_plan().with_code(0);
    assert!(!dir.read("prompt-2").contains("This is attempt"), "{}", dir.read("prompt-2"));
    assert_eq!(forget("one"), "one: no longer green\n");
    let report = Report::of(&dir.run_plan().with_code(1));
    assert!(report.reason("one").starts_with("tests pass before"), "{}", report.reason("one"));
}

/// A new prompt does not change whether the tests pass.
#[test]
fn a_new_prompt_leaves_a_feature_green() {
    let dir = TestDir::with_project();
    write_plan(&dir, &[ShellFeature::new("one", "answer one.txt x", "test -f one.txt")]);
    dir.run_plan().with_code(0);
    dir.write("plan.toml", dir.read("plan.toml").replace("Do it.", "Do it well."));
    assert_eq!(Report::of(&dir.run_plan().with_code(0)).requests(), 0);
}
