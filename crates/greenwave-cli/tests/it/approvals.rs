//! Features that wait for the user's approval before their merge.

use std::fs;

use crate::program::{Finished, until};
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// A feature that is held, whose agent stores its prompts and whose review counts its runs.
fn held(dir: &TestDir, script: &str) -> ShellFeature {
    let base = dir.path("");
    let script = format!(
        "n=$(($(cat '{0}count' 2>/dev/null || echo 0)+1)); echo $n > '{0}count'; cat > '{0}prompt-'$n; {script}",
        base.display()
    );
    let review =
        format!("review = {{ command = [\"sh\", \"-c\", \"echo x >> '{}reviews'\"] }}", base.display());
    ShellFeature::new("one", &script, "test -f one.txt").lines(&format!("hold = true\n{review}"))
}

fn lines(dir: &TestDir, name: &str) -> usize {
    fs::read_to_string(dir.path(name)).map_or(0, |text| text.lines().count())
}

fn approve(dir: &TestDir, feature: &str) -> Finished {
    dir.greenwave(["approve", "plan.toml", feature]).run()
}

/// A run in a pipe ends while a feature is held. Features that do not depend on it are green.
#[test]
fn a_held_feature_is_merged_by_the_next_run_after_its_approval() {
    let dir = TestDir::with_project();
    let features = [
        held(&dir, "echo $n > one.txt"),
        ShellFeature::new("two", "echo x > two.txt", "test -f one.txt && test -f two.txt").after("one"),
        ShellFeature::new("three", "echo x > three.txt", "test -f three.txt"),
    ];
    dir.write("plan.toml", shell_plan::unconfined(&features));
    let report = Report::of(&dir.run_plan().with_code(3));
    assert_eq!(report.phases(), [("one", "held"), ("two", "waiting"), ("three", "green")]);
    assert_eq!(report.reason("two"), "depends on `one`, which waits for your approval");
    assert_eq!((report.count("needs_you"), report.count("failed"), report.count("skipped")), (1, 0, 0));
    assert!(!dir.path("project/one.txt").exists());

    // Nothing is repeated before the decision.
    let report = Report::of(&dir.run_plan().with_code(3));
    assert_eq!((report.requests(), lines(&dir, "reviews"), report.count("needs_you")), (0, 1, 1));

    let approved = approve(&dir, "one").with_code(0).stdout;
    assert_eq!(approved, "one: attempt 1 is approved; the run in progress merges it, or else the next run\n");
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((lines(&dir, "count"), lines(&dir, "reviews"), report.count("needs_you")), (1, 1, 0));
    assert_eq!(dir.read("project/one.txt"), "1\n");
    assert_eq!(fs::read_dir(dir.path("project/.greenwave/approvals")).unwrap().count(), 0);
}

#[test]
fn a_run_in_progress_merges_an_approved_feature() {
    let dir = TestDir::with_project();
    let waits = format!("until test -e '{}'; do sleep 0.01; done; ", dir.path("go").display());
    let features = [
        held(&dir, "echo x > one.txt"),
        ShellFeature::new("two", &format!("{waits} echo x > two.txt"), "test -f two.txt"),
    ];
    dir.write("plan.toml", shell_plan::unconfined(&features));
    let mut running = dir.plan().start();
    running.read_until(r#""event":"needs_you""#);
    approve(&dir, "one").with_code(0);
    until("the feature is merged", || dir.path("project/one.txt").exists());
    assert!(!dir.path("project/two.txt").exists());
    dir.write("go", "");
    running.finish().with_code(0);
}

/// The comment is part of the next prompt, and the attempt is an additional one.
#[test]
fn a_rejected_feature_gets_another_attempt_with_the_comment() {
    let dir = TestDir::with_project();
    let features = [held(&dir, "echo $n > one.txt")];
    dir.write("plan.toml", shell_plan::unconfined(&features));
    dir.run_plan().with_code(3);
    approve(&dir, "one").with_code(0);
    let decision = dir.approvals("one", "decision").remove(0);
    let approval = fs::read(&decision).unwrap();
    let reject = ["reject", "plan.toml", "one", "--comment", "Say it louder.\nPlease."];
    let rejected = dir.greenwave(reject).run().with_code(0).stdout;
    assert!(rejected.starts_with("one: attempt 1 is rejected"), "{rejected}");
    let report = Report::of(&dir.run_plan().with_code(3));
    assert_eq!(report.rejections("one"), ["rejected by the user: Say it louder."]);
    let prompt = dir.read("prompt-2");
    assert!(prompt.contains("This is attempt 2 of 2"), "{prompt}");
    assert!(prompt.contains("Say it louder.\nPlease."), "{prompt}");
    assert_eq!(report.phases(), [("one", "held")]);

    // The approval of the first attempt does not count for the second one.
    fs::write(&decision, approval).unwrap();
    dir.run_plan().with_code(3);
    approve(&dir, "one").with_code(0);
    dir.run_plan().with_code(0);
    assert_eq!((dir.read("project/one.txt").as_str(), lines(&dir, "prompt-3")), ("2\n", 0));
}

/// A clone may come with files in `.greenwave`.
#[test]
fn decisions_without_the_users_seal_do_not_count() {
    let dir = TestDir::with_project();
    dir.write("plan.toml", shell_plan::unconfined(&[held(&dir, "echo x > one.txt")]));
    dir.run_plan().with_code(3);
    approve(&dir, "one").with_code(0);
    let decision = dir.approvals("one", "decision").remove(0);
    let mut sealed = fs::read(&decision).unwrap();
    let text = sealed.len() - 32;
    for changed in [&sealed[..text], &sealed[..text - 1]] {
        fs::write(&decision, changed).unwrap();
        dir.run_plan().with_code(3);
    }
    sealed[text] ^= 1;
    fs::write(&decision, &sealed).unwrap();
    dir.run_plan().with_code(3);
    sealed[text] ^= 1;
    fs::write(&decision, &sealed).unwrap();
    dir.run_plan().with_code(0);
}

#[test]
fn only_held_features_can_be_decided() {
    let dir = TestDir::with_project();
    let features = [held(&dir, "echo x > one.txt"), ShellFeature::new("two", "false", "test -f two.txt")];
    dir.write("plan.toml", shell_plan::unconfined(&features));
    let error = approve(&dir, "one").with_code(2).stderr;
    assert!(error.contains("cannot approve `one`: no answer of it waits for approval\n"), "{error}");
    // A failed feature counts more than a held one.
    dir.run_plan().with_code(1);
    let error = dir.greenwave(["reject", "plan.toml", "two"]).run().with_code(2).stderr;
    assert!(
        error.contains("cannot reject `two`: no answer of it waits for approval (held: `one`)"),
        "{error}"
    );
    let error = approve(&dir, "ones").with_code(2).stderr;
    assert!(error.contains("unknown feature `ones`; did you mean `one`?"), "{error}");
    // Of several features, all are decided or none.
    dir.greenwave(["approve", "plan.toml", "one", "two"]).run().with_code(2);
    assert_eq!(dir.approvals("one", "decision").len(), 0);
    // New tests make another feature.
    let changed = dir.read("plan.toml").replace("test -f one.txt", "test -e one.txt");
    dir.write("plan.toml", changed);
    approve(&dir, "one").with_code(2);
}

/// Two plans of a project have features with one id and different tests.
#[test]
fn features_of_two_plans_with_equal_ids_are_held_and_decided_apart() {
    let dir = TestDir::with_project();
    let plan = |file: &str| {
        let feature = ShellFeature::new("one", &format!("echo x > {file}"), &format!("test -f {file}"));
        shell_plan::unconfined(&[feature.lines("hold = true")])
    };
    dir.write("plan.toml", plan("a.txt"));
    dir.write("other.toml", plan("b.txt"));
    let run = |name: &str| dir.greenwave(["run", name, "--no-metrics", "--format", "json"]).run();
    for name in ["plan.toml", "other.toml"] {
        assert_eq!(Report::of(&run(name).with_code(3)).phases(), [("one", "held")]);
    }
    assert_eq!(dir.approvals("one", "held").len(), 2);
    approve(&dir, "one").with_code(0);
    dir.greenwave(["reject", "other.toml", "one", "--comment", "No."]).run().with_code(0);
    // The decision about one is neither lost nor taken for the other.
    let report = Report::of(&run("other.toml").with_code(3));
    assert_eq!((report.rejections("one"), report.requests()), (vec!["rejected by the user: No."], 1));
    let report = Report::of(&run("plan.toml").with_code(0));
    assert_eq!((report.phases(), report.requests()), (vec![("one", "green")], 0));
    assert!(dir.path("project/a.txt").exists() && !dir.path("project/b.txt").exists());
    assert_eq!(dir.approvals("one", "held").len(), 1);
    // Records of other plans are forgotten as well.
    dir.greenwave(["forget", "plan.toml", "one"]).run().with_code(0);
    assert_eq!(dir.approvals("one", "held").len(), 0);
}

#[test]
fn neither_agents_nor_tests_approve_an_answer() {
    for strength in ["mount", "landlock"] {
        let dir = TestDir::with_project();
        let (program, base) = (env!("CARGO_BIN_EXE_greenwave"), dir.path(""));
        let approve_it = format!("(cd '{}'; '{program}' approve plan.toml one) 2>&1", base.display());
        // The second attempt finds the answer of the first one held.
        let script =
            format!("said=$( {approve_it} ); echo \"$said\" > said.txt; echo $GREENWAVE_ATTEMPT > one.txt");
        let test = format!("test -f one.txt && {{ {approve_it}; true; }}");
        let one = ShellFeature::new("one", &script, &test).attempts(2).lines("hold = true");
        dir.write("plan.toml", format!("confine = \"{strength}\"\n{}", shell_plan::plan(&[one])));
        let first = dir.run_plan();
        if first.stderr.contains("cannot confine") {
            eprintln!("skipped: {strength}: {}", first.stderr);
            continue;
        }
        assert_eq!(Report::of(&first.with_code(3)).phases(), [("one", "held")], "{strength}");
        dir.greenwave(["reject", "plan.toml", "one"]).run().with_code(0);
        for _ in 0..2 {
            assert_eq!(Report::of(&dir.run_plan().with_code(3)).phases(), [("one", "held")], "{strength}");
        }
        approve(&dir, "one").with_code(0);
        dir.run_plan().with_code(0);
        let said = dir.read("project/said.txt");
        assert!(said.contains("cannot approve `one`: no answer of it waits"), "{strength}: {said}");
    }
}

/// `hold` of the plan applies to all features that do not set it.
#[test]
fn a_plan_can_hold_all_features() {
    let dir = TestDir::with_project();
    let features = [
        ShellFeature::new("one", "echo x > one.txt", "test -f one.txt").lines("hold = false"),
        ShellFeature::new("two", "echo x > two.txt", "test -f two.txt"),
    ];
    dir.write("plan.toml", format!("hold = true\n{}", shell_plan::plan(&features)));
    let text = dir.greenwave(["run", "plan.toml", "--no-metrics"]).run().with_code(3).stdout;
    for part in [
        "two  needs you  attempt 1 passed, and waits for your approval: run `greenwave approve plan.toml two`",
        "1 of 2 features green, 1 held in ",
        "Waiting for your approval. To continue after your decision: greenwave run plan.toml\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(dir.path("project/one.txt").exists() && !dir.path("project/two.txt").exists());
    // Its records are removed with those of its attempts.
    dir.greenwave(["forget", "plan.toml", "two"]).run().with_code(0);
    approve(&dir, "two").with_code(2);
}

/// The command of the settings runs for plans that have none of their own.
#[test]
fn the_command_of_the_settings_notifies() {
    let feature = ShellFeature::new("one", "answer one.txt x", "test -f one.txt");
    let plan = format!("hold = true\n{}", shell_plan::plan(&[feature]));
    for own in [false, true] {
        let dir = TestDir::with_project();
        let notify = |name: &str| format!("[\"sh\", \"-c\", \"cat > '{}'\"]", dir.path(name).display());
        let own_line = if own { format!("notify = {}\n", notify("by-plan")) } else { String::new() };
        dir.write("plan.toml", format!("{own_line}{plan}"));
        dir.plan().variable("GREENWAVE_RUN_NOTIFY", notify("by-settings")).run().with_code(3);
        assert_eq!(dir.path("by-plan").exists(), own);
        assert_eq!(dir.path("by-settings").exists(), !own);
        let event = dir.read(if own { "by-plan" } else { "by-settings" });
        assert!(event.contains("\"kind\":\"approval\""), "{event}");
    }
}
