//! Runs that are killed with SIGKILL in each phase of a feature, and resumed: no answer is lost or
//! merged twice, and no process is left.

use std::fs;

use rustix::process::Signal;

use crate::program::until;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Duration for which the processes of agents sleep, which identifies them.
const MARK: &str = "86399.75";

/// Events at which the run is killed, as parts of their lines. `merged` is after the write.
const MOMENTS: [&str; 8] = [
    r#""phase":"red""#,
    r#""event":"tests""#,
    r#""phase":"yellow""#,
    r#""event":"file""#,
    r#""event":"refused""#,
    r#""phase":"review""#,
    r#""phase":"merging""#,
    r#""event":"merged""#,
];

/// The agent notes its start and its end. Its first answer is wrong, and it leaves processes.
const AGENT: &str = r#"
    echo "start $GREENWAVE_ATTEMPT" >> $D/log; exec 2> /dev/null
    (setsid sleep MARK &); setsid sh -c '(sleep MARK &)' & sleep MARK &
    if test "$GREENWAVE_ATTEMPT" = 1; then sed -i 's/^end$/wrong\nend/' list.txt; else
    sed -i '/wrong/d; s/^end$/good\nend/' list.txt; fi
    echo "end $GREENWAVE_ATTEMPT" >> $D/log
"#;

fn dir() -> TestDir {
    let dir = TestDir::with_project().with("project/list.txt", "start\nend\n");
    let agent = AGENT.replace("$D", &dir.path("").display().to_string()).replace("MARK", MARK);
    let feature = ShellFeature::new("one", &agent, "grep -q good list.txt").attempts(3);
    let review = "review = { command = [\"true\"] }";
    dir.write("plan.toml", shell_plan::unconfined(&[feature.lines(review)]));
    dir
}

/// Returns whether a process of an agent is alive.
fn is_anything_left() -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut commands = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.any(|command| command.split(|byte| *byte == 0).any(|word| word == MARK.as_bytes()))
}

#[test]
fn a_run_killed_in_any_phase_is_resumed_without_loss() {
    for moment in MOMENTS {
        let dir = dir();
        let mut running = dir.plan().start();
        let found = std::iter::from_fn(|| running.line()).any(|line| line.contains(moment));
        assert!(found, "the run has no event with {moment}");
        running.signal(Signal::KILL);
        running.wait();
        until("all processes of the agents have ended", || !is_anything_left());
        let finished = dir.plan().run().with_code(0);
        assert_eq!(Report::of(&finished).phases(), [("one", "green")], "{moment}");
        assert_eq!(dir.read("project/list.txt"), "start\ngood\nend\n", "{moment}");
        until("all processes of the agents have ended", || !is_anything_left());
        let log = dir.read("log");
        let ended = |attempt: &str| log.lines().filter(|line| *line == format!("end {attempt}")).count();
        let started: Vec<&str> = log.lines().filter(|line| line.starts_with("start")).collect();
        // Only the attempt during which the run was killed may be repeated, with its number.
        assert!(started.is_sorted() && started.len() <= 3 && ended("3") == 0, "{moment}: {log}");
        if ["refused", "review", "merging", "merged"].iter().any(|event| moment.contains(event)) {
            assert!(ended("1") == 1, "{moment}: {log}");
        }
        if ["review", "merging", "merged"].iter().any(|event| moment.contains(event)) {
            assert_eq!(started.len(), 2, "{moment}: {log}");
        }
    }
}
