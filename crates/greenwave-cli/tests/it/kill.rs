//! Runs that are cut off at any moment, with SIGKILL or politely, go on where they were: nothing that was green is asked again,
//! and in the end everything is as if nothing had happened.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::chance::Chance;
use crate::demo::{FEATURES, demo};
use crate::folder::{Files, Folder};
use crate::program::{COMPILING_BOUND, Program, until};

/// How often the run of the small plan is killed; more with this variable, for the long run.
const ROUNDS: u64 = 12;
const ROUNDS_VARIABLE: &str = "GREENWAVE_CRASH_ROUNDS";

/// What is known of the features over several runs.
#[derive(Default)]
struct Seen {
    green: BTreeSet<String>,
}

impl Seen {
    /// Takes in a line of a run: nothing that was green before it may be asked or merged again.
    #[track_caller]
    fn line(&self, line: &str, now: &mut BTreeSet<String>) {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let Some(feature) = event["feature"].as_str() else { return };
        let again = event["event"] == "merged" || event["phase"] == "yellow";
        assert!(!(again && self.green.contains(feature)), "done a second time: {line}");
        if event["event"] == "merged" || (event["event"] == "phase" && event["phase"] == "green") {
            now.insert(feature.to_owned());
        }
    }

    /// Lets a run come to its `lines`th line and ends it by a signal; false if it ended before.
    fn cut_off(&mut self, program: Program, lines: u64, signal: Signal) -> bool {
        let mut running = program.start();
        let mut now = BTreeSet::new();
        for _ in 0..lines {
            match running.line() {
                Some(line) => self.line(&line, &mut now),
                None => break,
            }
        }
        running.signal(signal);
        let finished = running.finish();
        // What it had said until then counts as well, but for a last line that is cut off.
        for line in finished.stdout.lines().filter(|line| line.ends_with('}')) {
            self.line(line, &mut now);
        }
        self.green.append(&mut now);
        finished.status.code() != Some(0)
    }

    /// Lets a run come to its end.
    #[track_caller]
    fn finish(&self, program: Program) -> Vec<Value> {
        let finished = program.run().with_code(0);
        let mut now = BTreeSet::new();
        finished.stdout.lines().for_each(|line| self.line(line, &mut now));
        finished.events()
    }
}

#[test]
fn a_demo_that_is_killed_goes_on() {
    let mut chance = Chance::new();
    let folder = Folder::empty();
    let start = || {
        let args = ["demo", "--dir", "demo", "--no-metrics", "--format", "json", "--pace", "0.1"];
        folder.greenwave(args).bound(COMPILING_BOUND)
    };
    let mut seen = Seen::default();
    for _ in 0..3 {
        // A whole run has about 120 lines.
        seen.cut_off(start(), 5 + chance.below(50), Signal::KILL);
    }
    let events = seen.finish(start());
    let features = events.last().unwrap()["features"].as_array().unwrap();
    assert_eq!(features.iter().filter(|feature| feature["phase"] == "green").count(), FEATURES.len());
    let kept = features.iter().filter(|feature| feature["up_to_date"] == true);
    assert!(kept.count() >= seen.green.len(), "{:?}", seen.green);
    same(&folder.files("demo/project"), &demo().files);
}

/// The contents are long, so only the names of those that differ are shown.
#[track_caller]
fn same(files: &Files, wanted: &Files) {
    let differs = |path: &&String| files.get(*path) != wanted.get(*path);
    let different: BTreeSet<_> = files.keys().chain(wanted.keys()).filter(differs).collect();
    assert_eq!(different, BTreeSet::new());
}

/// A plan without compilers: chains and branches, files that several features write, some of them large.
fn small_plan() -> String {
    let mut plan = "project = \"project\"\n".to_owned();
    for feature in 0..8 {
        let after = match feature {
            0 | 1 => String::new(),
            other => format!("\"f{}\"", other - 2),
        };
        plan.push_str(&format!(
            r#"
[agents.a{feature}]
kind = "command"
command = ["sh", "-c", '''
    for file in 1 2 3 4 5 6; do
        echo '```text out/f{feature}/'$file.txt; head -c 150000 /dev/zero | tr '\0' {feature} | fold -w 79; echo; echo '```'
    done
    echo '```text list.txt'; sed 's/^line {feature}$/line {feature} done/' list.txt; echo '```' ''']

[[features]]
id = "f{feature}"
agent = "a{feature}"
depends_on = [{after}]
prompt = "Write files."
tests = [{{ command = ["grep", "-q", "^line {feature} done", "list.txt"] }}]
"#
        ));
    }
    plan
}

fn small() -> Folder {
    // Far enough from each other that changes of two features can be joined.
    let list: String = (0..8).map(|line| format!("line {line}\n.\n.\n.\n.\n")).collect();
    Folder::with_project().with("project/list.txt", list).with("plan.toml", small_plan())
}

#[test]
fn any_moment_will_do() {
    let mut chance = Chance::new();
    let whole = small();
    let events = whole.run_plan().with_code(0).events();
    let files = whole.files("project");
    let lines_max = events.len() as u64;
    let rounds = std::env::var(ROUNDS_VARIABLE).ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut rounds_left = rounds;
    while rounds_left > 0 {
        let folder = small();
        let mut seen = Seen::default();
        while rounds_left > 0 {
            // Being asked to stop is an end as well, and comes less suddenly.
            let signal = if chance.below(3) == 0 { Signal::INT } else { Signal::KILL };
            if !seen.cut_off(folder.plan(), 2 + chance.below(lines_max), signal) {
                break;
            }
            rounds_left -= 1;
        }
        seen.finish(folder.plan());
        same(&folder.files("project"), &files);
    }
}

/// Killed while a feature's files are being written into the project, of which there are many.
#[test]
fn a_merge_that_is_cut_off_is_finished() {
    let whole = small();
    whole.run_plan().with_code(0);
    let files = whole.files("project");
    for written in ["1.txt", "3.txt", "6.txt"] {
        let folder = small();
        let mut running = folder.plan().start();
        let first = folder.path("project/out/f0").join(written);
        until("the first files are in the project", || first.exists());
        running.signal(Signal::KILL);
        running.wait();
        let mut seen = Seen::default();
        while let Some(line) = running.line() {
            if line.ends_with('}') {
                let mut now = BTreeSet::new();
                seen.line(&line, &mut now);
                seen.green.append(&mut now);
            }
        }
        seen.finish(folder.plan());
        same(&folder.files("project"), &files);
    }
}
