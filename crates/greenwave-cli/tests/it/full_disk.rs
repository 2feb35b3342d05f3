//! Runs whose working copies lie on a small file system that fills up.

#![expect(clippy::print_stderr, reason = "tests say what they skip")]

use std::fs;
use std::process::Command;

use crate::program::{Finished, Program};
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Fills the file system.
const FILL: &str = "echo x >> \"$D/requests\"; head -c 20000000 /dev/zero > big.bin";

/// Runs the plan with working copies on a file system of 5 MB. Returns `None` where this user
/// cannot mount one.
fn run(dir: &TestDir) -> Option<Finished> {
    let script = "mount -t tmpfs -o size=5m tmpfs \"$1\" || exit 77; shift; exec \"$@\"";
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["-U", "-r"] };
    let mut command = Command::new("unshare");
    let copies = dir.path("copies");
    fs::create_dir_all(&copies).unwrap();
    command.args(user).args(["-m", "sh", "-c", script, "sh"]).arg(&copies);
    command.arg(env!("CARGO_BIN_EXE_greenwave"));
    command.args(["run", "plan.toml", "--no-metrics", "--format", "json", "--agents", "1"]);
    command.arg("--set").arg(format!("run.directory={}", copies.display()));
    let program = Program::of(command).within(&dir.path("")).variable("XDG_STATE_HOME", dir.path(STATE));
    let finished = program.run();
    if finished.status.code() == Some(77) || finished.stderr.contains("unshare failed") {
        eprintln!("skipped: {}", finished.stderr);
        return None;
    }
    Some(finished)
}

/// Returns a directory with a plan of three features, each with up to three attempts. They are not
/// confined, so that their requests can be counted.
fn directory(agent: &str, test: &str) -> TestDir {
    let dir = TestDir::with_project();
    let variables = format!("D='{}'", dir.path("").display());
    let feature = |id: &str| {
        let agent = format!("{variables}\n{}", agent.replace("ID", id));
        ShellFeature::new(id, &agent, &format!("{variables}; {}", test.replace("ID", id))).attempts(3)
    };
    let plan = shell_plan::unconfined(&["one", "two", "three"].map(feature));
    dir.write("plan.toml", format!("guards = \"off\"\n{plan}"));
    dir
}

fn requests(dir: &TestDir) -> usize {
    dir.read("requests").lines().count()
}

#[test]
fn an_agent_that_finds_the_disk_full_is_the_last_one_that_is_asked() {
    let dir = directory(FILL, "test -f ID.txt");
    let Some(finished) = run(&dir) else { return };
    let report = Report::of(&finished.with_code(1));
    assert_eq!(requests(&dir), 1);
    for (feature, phase) in report.phases() {
        assert_eq!(phase, "failed", "{feature}");
        let reason = report.reason(feature);
        assert!(reason.to_lowercase().contains("no space left on "), "{reason}");
    }
}

/// A test fails because the disk is full, not because of the answer, which the next run tests.
#[test]
fn an_answer_whose_test_finds_the_disk_full_is_tested_by_the_next_run() {
    let agent = "echo x >> \"$D/requests\"; answer ID.txt x";
    let test = "test -f ID.txt || exit 1; test -e \"$D/room\" || head -c 20000000 /dev/zero > big.bin";
    let dir = directory(agent, test);
    let Some(finished) = run(&dir) else { return };
    let report = Report::of(&finished.with_code(1));
    assert_eq!(report.phases().iter().filter(|(_, phase)| *phase == "failed").count(), 3);
    let before = requests(&dir);
    assert!(before <= 3, "{before} requests");
    dir.write("room", "");
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((requests(&dir), report.requests()), (3, 3 - before as u64));
}
