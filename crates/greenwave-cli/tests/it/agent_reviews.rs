//! Reviews by an agent, which approves or refuses a change before its merge.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Finished, Program, until};
use crate::shell_plan::Report;
use crate::test_dir::TestDir;

/// Returns a plan with a writer and a reviewer, which are not confined, and one feature. Both note
/// their requests. The prompts of the reviewer are recorded.
fn directory(writer: &str, reviewer: &str, feature: &str) -> TestDir {
    let plan = format!(
        "project = \"project\"\nconfine = \"off\"\n\
         [agents.writer]\nkind = \"command\"\n\
         command = [\"sh\", \"-c\", '''cat > $ROOT/prompt-$GREENWAVE_ATTEMPT; echo w >> $ROOT/requests\n{writer}''']\n\
         [agents.critic]\nkind = \"command\"\n\
         command = [\"sh\", \"-c\", '''cat >> $ROOT/review; echo r >> $ROOT/requests\n{reviewer}''']\n\
         [[features]]\nid = \"f\"\nprompt = \"Write f.\"\nagent = \"writer\"\n{feature}\n\
         [[features.tests]]\ncommand = [\"sh\", \"-c\", \"cat f.txt; grep -q right f.txt\"]\n"
    );
    TestDir::empty().with("plan.toml", plan).with("project/a.txt", "a\n")
}

const REVIEW: &str = "review = { agent = \"critic\" }";
const WRITE: &str = "echo right $GREENWAVE_ATTEMPT > f.txt";

fn run(dir: &TestDir) -> Program {
    let root = dir.path("").display().to_string();
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json"];
    dir.greenwave(args).within(&dir.path("")).variable("ROOT", &root)
}

fn requests(dir: &TestDir) -> String {
    dir.read("requests").split_whitespace().collect()
}

fn reviews(finished: &Finished) -> Vec<(Value, Value)> {
    let events = finished.events().into_iter().filter(|event| event["event"] == "reviewed");
    events.map(|event| (event["approved"].clone(), event["reason"].clone())).collect()
}

#[test]
fn a_refusal_is_feedback_and_costs_an_attempt() {
    let critic = "echo wrong > f.txt; echo more > g.txt
        if grep -q 'right 1' $ROOT/review && ! grep -q 'right 2' $ROOT/review
        then printf 'REFUSE\\n\\nThe number is too small.\\nUse another.\\n'; else echo APPROVE; fi";
    let dir = directory(WRITE, critic, REVIEW);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), "wrwr");
    assert_eq!(dir.read("project/f.txt"), "right 2\n");
    assert!(!dir.path("project/g.txt").exists());
    let (refused, approved) = ((json!(false), json!("The number is too small.")), (json!(true), json!("")));
    assert_eq!(reviews(&finished), [refused, approved]);
    let report = Report::of(&finished);
    assert_eq!(report.feature("f")["attempts"], 2);
    assert_eq!(report.rejections("f"), ["agent `critic` refuses the change: The number is too small."]);
    let next = dir.read("prompt-2");
    assert!(next.contains("The number is too small.\nUse another."), "{next}");
    // The prompt has the task, the change and the output of the tests.
    let review = dir.read("review");
    for part in
        ["Write f.", "+++ b/f.txt\n@@ -0,0 +1 @@\n+right 1", "Their output ends like this:\n\nright 1"]
    {
        assert!(review.contains(part), "{part}: {review}");
    }
}

#[test]
fn a_reviewer_that_does_not_decide_is_asked_again_and_then_refuses() {
    let critic = "if test $GREENWAVE_ATTEMPT = 2; then echo APPROVE; else echo I APPROVE of this; fi";
    let dir = directory(WRITE, critic, REVIEW);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), "wrrwr");
    let reason =
        "agent `critic` refuses the change: the answer of `critic` begins with neither APPROVE nor REFUSE";
    assert_eq!(Report::of(&finished).rejections("f"), [reason]);
    assert!(dir.read("review").contains("Your last answer could not be used"));
}

#[test]
fn the_command_of_a_review_comes_before_its_agent() {
    let review = "review = { command = [\"grep\", \"-q\", \"2\", \"f.txt\"], agent = \"critic\" }";
    let dir = directory(WRITE, "echo APPROVE", review);
    run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), "wwr");
    let dir = directory(WRITE, "echo APPROVE", "review = { agent = \"critics\" }");
    let refused = dir.greenwave(["run", "--check", "plan.toml"]).within(&dir.path("")).run().with_code(2);
    assert!(refused.stderr.contains("unknown agent `critics`"), "{}", refused.describe());
}

#[test]
fn a_reviewer_that_is_limited_costs_no_attempt() {
    let critic = "if test -e $ROOT/limited; then echo APPROVE; else touch $ROOT/limited; \
                  echo 'HTTP 429, retry-after: 0.1' >&2; exit 75; fi";
    let dir = directory(WRITE, critic, REVIEW);
    let finished = run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), "wrr");
    let report = Report::of(&finished);
    assert_eq!((report.count("waiting"), &report.feature("f")["attempts"]), (1, &json!(1)));
}

#[test]
fn a_reviewer_that_cannot_work_ends_the_feature_with_its_answer_stored() {
    let critic = "test -e $ROOT/works && echo APPROVE || { echo cannot >&2; exit 1; }";
    let dir = directory(WRITE, critic, REVIEW);
    let finished = run(&dir).run().with_code(1);
    let report = Report::of(&finished);
    assert!(
        report.reason("f").starts_with("review `critic` has no usable answer: "),
        "{}",
        report.reason("f")
    );
    fs::write(dir.path("works"), "").unwrap();
    run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), "wrr");
}

#[test]
fn an_approval_survives_a_kill() {
    // The guard runs for the first time after the review, before the merge, and waits for the kill.
    let guard = "[[guards]]\nenv = [\"ROOT\"]\ncommand = [\"sh\", \"-c\", \"touch $ROOT/merging; \
                 until test -e $ROOT/killed; do sleep 0.02; done\"]\n";
    let dir = directory(WRITE, "echo APPROVE", REVIEW);
    let plan = format!("{}\n{guard}", dir.read("plan.toml"));
    let dir = dir.with("plan.toml", plan);
    let running = run(&dir).start();
    until("the merge has begun", || dir.path("merging").exists());
    running.signal(Signal::KILL);
    running.finish();
    fs::write(dir.path("killed"), "").unwrap();
    run(&dir).run().with_code(0);
    assert_eq!(requests(&dir), "wr");
}
