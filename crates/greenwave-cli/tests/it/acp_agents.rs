//! Runs with agents of the Agent Client Protocol, played by scripts of the shell.

use std::path::Path;

use greenwave_testkit::acp::agent_script;

use crate::shell_plan::Report;
use crate::test_dir::TestDir;

#[test]
fn a_plan_runs_with_an_agent_of_the_protocol() {
    // The first turn is limited by the provider, the second writes a wrong file, and the third
    // continues the session of the second in the same program.
    let turn = r#"
        if ! test -e "$ROOT/limited"; then
            touch "$ROOT/limited"
            reply '"error":{"code":-32603,"message":"HTTP 429, retry after 0.1 s"}'
        elif test "${line#*attempt 2 of 2}" = "$line"; then
            echo wrong > f.txt; say 'I wrote it.'; done_ end_turn
        else
            echo right > f.txt; done_ end_turn
        fi"#;
    let script = agent_script("{\"loadSession\":true}", turn);
    let plan = "project = \"project\"\nconfine = \"off\"\n[agents.a]\nkind = \"acp\"\n\
        command = [\"sh\", \"agent.sh\"]\n[[features]]\nid = \"f\"\nprompt = \"Write f.\"\nagent = \"a\"\n\
        attempts = 2\n[[features.tests]]\ncommand = [\"grep\", \"-q\", \"right\", \"f.txt\"]\n";
    let dir = TestDir::empty().with("agent.sh", script).with("project/a.txt", "a\n");
    let dir = dir.with("plan.toml", plan.replace("agent.sh", "./agent.sh"));
    let root = dir.path("").display().to_string();
    let log = dir.path("log").display().to_string();
    let run = dir.greenwave(["run", "plan.toml", "--no-metrics", "--format", "json"]).within(&dir.path(""));
    let finished = run.variable("ROOT", &root).variable("ACP_LOG", &log).run().with_code(0);
    assert_eq!(dir.read("project/f.txt"), "right\n");
    let report = Report::of(&finished);
    assert_eq!((report.feature("f")["attempts"].as_u64(), report.count("waiting")), (Some(2), 1));
    let log = dir.read("log");
    assert_eq!(calls(&log), [2, 2, 0, 3]);
    assert!(log.contains("This is attempt 2 of 2."), "{log}");
}

/// Returns the numbers of calls that start a program, open a session, load one, and send a prompt.
fn calls(log: &str) -> [usize; 4] {
    ["initialize", "session/new", "session/load", "session/prompt"]
        .map(|method| log.matches(&format!("\"method\":\"{method}\"")).count())
}

/// An agent that leaves a process behind, which makes the file right as soon as the tests run. It
/// writes a right file itself in its last attempt.
const TRICKSTER: &str = r#"
    echo $$ >> pids; say working
    (while :; do test -e tested && echo right > f.txt; done) &
    case "$line" in
        *'attempt 3 of 3'*) echo right > f.txt ;;
        *) echo "wrong in turn $(wc -l < pids)" > f.txt ;;
    esac
    done_ end_turn"#;

/// Runs the agent with a test that gives its process time to act. Returns the log of its messages,
/// and the numbers of its processes, one for each turn.
fn trick(confine: &str, before_test: &str) -> (String, Vec<String>) {
    let script = agent_script("{\"loadSession\":true}", TRICKSTER);
    let test = format!(
        "touch tested; {before_test}; for i in $(seq 200); do grep -q right f.txt && exit 0; done; exit 1"
    );
    let plan = format!(
        "project = \"project\"\n{confine}\n[agents.a]\nkind = \"acp\"\n\
         command = [\"sh\", \"./agent.sh\"]\n[[features]]\nid = \"f\"\nprompt = \"Write f.\"\nagent = \"a\"\n\
         attempts = 3\n[[features.tests]]\ncommand = [\"sh\", \"-c\", {test:?}]\n"
    );
    let dir = TestDir::empty().with("project/agent.sh", script).with("plan.toml", plan);
    let dir = dir.with("project/a.txt", "a\n");
    let run = dir.greenwave(["run", "plan.toml", "--no-metrics", "--format", "json"]).within(&dir.path(""));
    let finished = run.variable("ACP_LOG", "messages").run().with_code(0);
    let report = Report::of(&finished);
    assert_eq!(report.feature("f")["attempts"].as_u64(), Some(3), "{}", finished.describe());
    let pids: Vec<String> = dir.read("project/pids").lines().map(str::to_owned).collect();
    assert_eq!(pids.len(), 3);
    (dir.read("project/messages"), pids)
}

#[test]
fn a_kept_program_does_nothing_between_its_turns() {
    let (log, pids) = trick("confine = \"off\"", ":");
    assert_eq!(calls(&log), [1, 1, 0, 3]);
    assert!(pids.iter().all(|pid| *pid == pids[0]));
    assert!(!Path::new("/proc").join(&pids[0]).exists(), "nothing is left of the program");
}

#[test]
fn a_program_that_is_killed_between_its_turns_is_started_again() {
    let (log, pids) = trick("confine = \"off\"", "kill -9 $(tail -n 1 pids)");
    assert_eq!(calls(&log), [3, 1, 2, 3]);
    assert!(pids[0] != pids[1] && pids[1] != pids[2]);
}

/// Tests see their own processes only, so they can neither wake nor kill the agent. Where they see
/// those of others, each attempt starts the agent again.
#[test]
fn tests_that_are_confined_do_not_reach_a_kept_program() {
    let (log, pids) = trick("", "kill -CONT -1");
    match calls(&log) {
        [1, 1, 0, 3] => assert!(pids.iter().all(|pid| *pid == pids[0])),
        counts => assert_eq!(counts, [3, 1, 2, 3]),
    }
}
