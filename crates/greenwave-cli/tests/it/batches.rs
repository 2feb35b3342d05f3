//! Merges in batches: their cost, and their verdicts when one feature of a batch is to blame.

use std::time::Instant;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// A feature that writes a file, and whose test may depend on all files of the project.
fn plain(id: &str) -> ShellFeature {
    ShellFeature::new(id, &format!("answer {id}.txt x"), &format!("test -f {id}.txt"))
}

fn many(count: usize) -> Vec<ShellFeature> {
    (1..=count).map(|number| plain(&format!("f{number}"))).collect()
}

fn run(features: &[ShellFeature], code: i32) -> (TestDir, Report) {
    run_with(features, "", code)
}

/// Runs a plan that ends with these lines.
fn run_with(features: &[ShellFeature], lines: &str, code: i32) -> (TestDir, Report) {
    let plan = format!("{}\n{lines}", shell_plan::plan(features));
    let dir = TestDir::with_project().with("plan.toml", plan).with("project/old.txt", "old\n");
    let report = Report::of(&dir.run_plan().with_code(code));
    (dir, report)
}

/// Returns the features that are not green.
fn not_green(report: &Report) -> Vec<String> {
    let phases = report.phases().into_iter();
    phases.filter(|(_, phase)| *phase != "green").map(|(id, _)| id.to_owned()).collect()
}

/// Maximum number of batches of a run that has just ended: a feature waits for others for at most
/// ten seconds, which a busy machine may need for a part of the features.
fn batches_max(started: Instant) -> u64 {
    1 + started.elapsed().as_secs() / 10
}

/// More features than can be in progress at once, each with a test that depends on all files: every
/// merge runs all tests again.
#[test]
fn the_number_of_tests_grows_with_the_number_of_features() {
    let started = Instant::now();
    let (dir, report) = run(&many(40), 0);
    assert_eq!(not_green(&report), [""; 0]);
    // Red, yellow, and once for each batch.
    let max = 40 * (2 + batches_max(started));
    assert!(report.total("tests_run") <= max, "{} tests, of {max}", report.total("tests_run"));
    for number in 1..=40 {
        assert_eq!(dir.read(&format!("project/f{number}.txt")), "x\n");
    }
}

#[test]
fn only_the_feature_that_breaks_a_guard_is_rejected() {
    let guard = "[[guards]]\nname = \"old\"\ncommand = [\"grep\", \"-q\", \"old\", \"old.txt\"]\n";
    let mut features = many(6);
    features.insert(3, ShellFeature::new("bad", "answer bad.txt x; answer old.txt new", "test -f bad.txt"));
    let (dir, report) = run_with(&features, guard, 1);
    assert_eq!(not_green(&report), ["bad"]);
    assert_eq!(
        report.rejections("bad"),
        ["after merging, test `old`, which passed before, failed with exit code 1"]
    );
    assert_eq!(dir.read("project/old.txt"), "old\n");
}

/// The guard alone runs on parts of the batch, until the feature is found that breaks it.
#[test]
fn a_feature_to_blame_among_many_costs_few_tests() {
    let guard = "[[guards]]\nname = \"old\"\ncommand = [\"grep\", \"-q\", \"old\", \"old.txt\"]\n";
    let mut features = many(24);
    features.insert(12, ShellFeature::new("bad", "answer bad.txt x; answer old.txt new", "test -f bad.txt"));
    let started = Instant::now();
    let (_, report) = run_with(&features, guard, 1);
    assert_eq!(not_green(&report), ["bad"]);
    // Red, yellow, and once each for the batch, the features before the one to blame, this one, and
    // those behind it, with some runs of the guard. Split into halves, the batch needs ten.
    let max = 25 * (2 + 3 + batches_max(started)) + 40;
    assert!(report.total("tests_run") <= max, "{} tests", report.total("tests_run"));
}

#[test]
fn features_that_break_each_other_are_not_merged_together() {
    let test = |own: &str, other: &str| format!("test -f {own}.txt && ! test -f {other}.txt");
    let mut features = many(4);
    features.push(ShellFeature::new("left", "answer left.txt x", &test("left", "right")));
    features.push(ShellFeature::new("right", "answer right.txt x", &test("right", "left")));
    let (dir, report) = run(&features, 1);
    let failed = not_green(&report);
    assert!(failed == ["left"] || failed == ["right"], "{failed:?}");
    assert!(!dir.path(&format!("project/{}.txt", failed[0])).exists());
    assert!(report.rejections(&failed[0])[0].starts_with("after merging, test "));
}

/// Both change the same line. The second one gets another attempt, with both versions.
#[test]
fn a_conflict_within_a_batch_costs_one_feature_an_attempt() {
    let script = |text: &str| {
        format!(
            "if grep -q 'changed by another feature'; then answer old.txt both; else answer old.txt {text}; fi"
        )
    };
    let feature = |id: &str| ShellFeature::new(id, &script(id), "! grep -q old old.txt").attempts(2);
    let mut features = many(3);
    features.extend([feature("one"), feature("two")]);
    let (dir, report) = run(&features, 0);
    assert_eq!(dir.read("project/old.txt"), "both\n");
    assert_eq!(report.count("refused"), 1);
}

#[test]
fn a_flaky_test_of_a_batch_costs_no_attempt() {
    // Fails once, when the files of other features exist.
    let flaky = "test -f flaky.txt || exit 1; test -f f1.txt || exit 0; ! mkdir ../../../seen 2>/dev/null";
    let mut features = many(5);
    features.push(ShellFeature::new("flaky", "answer flaky.txt x", flaky));
    let (_, report) = run(&features, 0);
    assert_eq!(report.count("refused"), 0);
}

/// The dependant starts as soon as the feature that it waits for is merged.
#[test]
fn a_feature_with_a_dependant_does_not_wait_for_others() {
    let slow = "until test -f ../../../done; do sleep 0.05; done; answer slow.txt x";
    let features = [
        plain("first"),
        ShellFeature::new("second", "touch ../../../done; answer second.txt x", "test -f second.txt")
            .after("first"),
        ShellFeature::new("slow", slow, "test -f slow.txt"),
    ];
    // The agents wait for each other through a file outside of their copies.
    let dir = TestDir::with_project().with("plan.toml", shell_plan::unconfined(&features));
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(not_green(&report), [""; 0]);
}

/// Runs an unconfined plan with two workers, whose scripts meet in files outside of their copies.
fn run_on_two_workers(features: &[ShellFeature], lines: &str) {
    let plan = format!("{lines}\n{}", shell_plan::unconfined(features));
    let dir = TestDir::with_project().with("plan.toml", plan);
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json", "--workers", "2"];
    let report = Report::of(&dir.greenwave(args).run().with_code(0));
    assert_eq!(not_green(&report), [""; 0]);
    assert_eq!(report.notes("flaky-test"), [""; 0], "a test failed beside another one");
}

/// Returns a script that fails before its feature exists, and has a part that only runs on the
/// files of a batch.
fn on_the_batch(id: &str, script: &str) -> String {
    format!("test -f {id}.txt || exit 1; test -f left.txt -a -f right.txt || exit 0; out=../../..; {script}")
}

/// On the batch, each of two tests waits until the other one runs, in another directory.
#[test]
fn tests_of_a_batch_run_beside_each_other_in_copies_of_their_own() {
    let meets = |own: &str, other: &str| {
        let here = format!("stat -c %i . > $out/{own}.new; mv $out/{own}.new $out/{own}");
        let wait = format!("until test -f $out/{other}; do sleep 0.01; done");
        let script = format!("{here}; {wait}; ! cmp -s $out/{own} $out/{other}");
        ShellFeature::new(own, &format!("answer {own}.txt x"), &on_the_batch(own, &script))
    };
    run_on_two_workers(&[meets("left", "right"), meets("right", "left")], "");
}

/// Tests that need the same resource fail if they overlap, and so does the second test of a feature
/// if it starts before the first one has ended.
#[test]
fn tests_of_a_batch_that_exclude_each_other_run_one_after_another() {
    let locks = "mkdir $out/lock || exit 1; sleep 0.2; rmdir $out/lock";
    let of = |id: &str, script: &str| {
        ShellFeature::new(id, &format!("answer {id}.txt x"), &on_the_batch(id, script))
    };
    let locked = |id: &str| of(id, locks).lines("resources = { lock = 1 }");
    let first = "[[features.tests]]\nname = \"first\"\n\
                 command = [\"sh\", \"-c\", \"sleep 0.2; touch built.done\"]\n";
    let built = of("built", "test -f built.done").lines(first);
    let features = [locked("left"), locked("right"), locked("third"), built];
    run_on_two_workers(&features, "resources = { lock = 1 }");
}
