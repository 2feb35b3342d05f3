//! Runs with agents of the Agent Client Protocol, played by scripts of the shell.

use greenwave_testkit::acp::agent_script;

use crate::shell_plan::Report;
use crate::test_dir::TestDir;

#[test]
fn a_plan_runs_with_an_agent_of_the_protocol() {
    // The first turn is limited by the provider, the second writes a wrong file, and the third
    // loads the session of the second.
    let turn = r#"
        if ! test -e "$ROOT/limited"; then
            touch "$ROOT/limited"
            reply '"error":{"code":-32603,"message":"HTTP 429, retry after 0.1 s"}'
        elif test "$GREENWAVE_ATTEMPT" = 1; then
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
    let count = |method: &str| log.matches(&format!("\"method\":\"{method}\"")).count();
    assert_eq!((count("session/new"), count("session/load"), count("session/prompt")), (2, 1, 3));
    assert!(log.contains("This is attempt 2 of 2."), "{log}");
}
