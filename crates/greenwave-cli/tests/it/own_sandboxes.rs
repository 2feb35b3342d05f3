//! Agents that confine themselves with mounts, as bubblewrap does.

use std::process::Command;

use crate::harnesses::program;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Arguments of bubblewrap that make everything but the working directory read-only.
const SANDBOX: &str = "bwrap --ro-bind / / --dev /dev --proc /proc --bind \"$PWD\" \"$PWD\" --unshare-pid";

/// Such an agent works if the plan does not confine it, which the start of the run says. Otherwise
/// a note says why it fails.
#[test]
fn an_agent_with_a_sandbox_of_its_own_is_not_confined_on_demand() {
    let Some(_) = program(&[&["bwrap", "--version"]]) else { return };
    let works = Command::new("sh").args(["-c", &format!("{SANDBOX} true")]).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: bwrap may not mount");
        return;
    }
    let dir = TestDir::with_project().with("outside", "mine\n");
    let outside = dir.path("outside").display().to_string();
    let script =
        format!("{SANDBOX} sh -c 'echo made > one.txt; if echo x > {outside}; then rm one.txt; fi' 2>&1");
    for confine in ["off", "auto"] {
        let lines = format!("confine = \"{confine}\"");
        let one = ShellFeature::new("one", &script, "test -f one.txt").agent(&lines);
        dir.write("plan.toml", shell_plan::plan(&[one]));
        let finished = dir.run_plan();
        let (report, events) = (Report::of(&finished), finished.events());
        let start = events.iter().find(|event| event["event"] == "confinement").unwrap().clone();
        let check = dir.greenwave(["run", "--check", "plan.toml"]).run().stderr;
        if confine == "off" {
            assert_eq!(report.phases(), [("one", "green")], "{finished:?}");
            assert_eq!(start["agents"]["one"], "off");
            assert!(report.notes("own-sandbox").is_empty() && !check.contains("bwrap"), "{check}");
            std::fs::remove_file(dir.path("project/one.txt")).unwrap();
            std::fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
            continue;
        }
        if start["strength"] == "off" {
            eprintln!("skipped: no confinement on this system");
            return;
        }
        assert_eq!(report.phases(), [("one", "failed")], "{finished:?}");
        let note = "agent `one` starts `bwrap`, which cannot confine within the run's confinement";
        assert_eq!(report.notes("own-sandbox"), [note]);
        assert!(check.contains(note) && check.contains("set `confine = \"off\"` in [agents.one]"), "{check}");
    }
    assert_eq!(dir.read("outside"), "mine\n");
}
