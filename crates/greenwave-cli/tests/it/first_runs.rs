//! `greenwave test` in a project of pytest for the first time: the process that collects the tests
//! runs them, too, if they share a process in every run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::pytest::{FAILS, PASSES, Suite};
use crate::test_command::verdicts;

/// A suite whose `conftest.py` appends a letter to the file that is returned when a process of
/// pytest starts and when it ends, which is a hook of the session of all files.
fn suite_with_log(files: &[(&str, &str)]) -> Option<(Suite, PathBuf)> {
    let suite = Suite::new(files)?;
    let log = suite.dir.path("log");
    let text = format!(
        "def note(letter):\n\
         \x20   with open({log:?}, 'a') as log:\n\
         \x20       log.write(letter)\n\
         note('s')\n\
         def pytest_unconfigure():\n\
         \x20   note('e')\n"
    );
    suite.dir.write("p/conftest.py", text);
    Some((suite, log))
}

#[test]
fn one_process_collects_and_runs() {
    for (files, expected) in [
        (
            &[("test_a.py", PASSES), ("test_b.py", PASSES)][..],
            &[("py:test_a.py", true), ("py:test_b.py", true)][..],
        ),
        (&[("test_a.py", PASSES)], &[("py:test_a.py", true)]),
    ] {
        let Some((suite, log)) = suite_with_log(files) else { return };
        let ran = suite.greenwave(&["--jobs", "1", "--format", "json"]).run().with_code(0);
        let ran = verdicts(&ran);
        let ran: Vec<(&str, bool)> = ran.iter().map(|(name, passed, _)| (name.as_str(), *passed)).collect();
        assert_eq!(ran, expected);
        assert_eq!(fs::read_to_string(log).unwrap(), "se");
    }
}

#[test]
fn an_edit_after_the_first_run_leaves_the_files_of_the_other_process_cached() {
    let names: Vec<String> = (0..8).map(|number| format!("test_{number}.py")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), PASSES)).collect();
    let Some(suite) = Suite::new(&files) else { return };
    // Without version control, the names in the directory count, which has just got `.greenwave`.
    assert!(Command::new("git").args(["init", "-q"]).arg(suite.dir.path("p")).status().unwrap().success());
    suite.greenwave(&["--jobs", "2"]).run().with_code(0);
    suite.dir.write("p/test_3.py", format!("{PASSES}# An edit.\n"));
    let second = verdicts(&suite.greenwave(&["--jobs", "2", "--format", "json"]).run().with_code(0));
    let is_cached = |name: &str| second.iter().any(|it| it.0 == name && it.2);
    assert!(!is_cached("py:test_3.py"), "{second:?}");
    assert!(second.iter().any(|it| it.2), "all files ran again: {second:?}");
}

#[test]
fn with_two_workers_one_of_two_processes_collects() {
    let files = [("test_a.py", PASSES), ("test_b.py", PASSES), ("test_c.py", PASSES)];
    let Some((suite, log)) = suite_with_log(&files) else { return };
    suite.greenwave(&["--jobs", "2"]).run().with_code(0);
    assert_eq!(fs::read_to_string(log).unwrap().matches('s').count(), 2);
}

#[test]
fn a_process_that_is_not_needed_ends_by_itself() {
    let Some((suite, log)) = suite_with_log(&[("test_a.py", PASSES)]) else { return };
    // New tests that run several times have a process for each run.
    suite.greenwave(&["--stress-new", "2"]).run().with_code(0);
    let log = fs::read_to_string(log).unwrap();
    let (starts, ends) = (log.matches('s').count(), log.matches('e').count());
    assert_eq!((starts, ends), (3, 3), "{log}");
}

#[test]
fn a_failure_of_the_first_run_is_that_of_pytest() {
    let Some(suite) = Suite::new(&[("test_a.py", PASSES), ("test_b.py", FAILS)]) else { return };
    suite.check(&[("py:test_a.py", true), ("py:test_b.py", false)]);
}

#[test]
fn an_input_that_changes_after_the_collection_has_read_it_is_not_missed() {
    let files = [
        ("value.py", "VALUE = 1\n"),
        ("test_a.py", "from value import VALUE\ndef test_a():\n    assert VALUE == 1\n"),
        ("test_b.py", PASSES),
    ];
    let Some(suite) = Suite::new(&files) else { return };
    let process = suite.dir.path("process");
    // A signal leaves no access in the trace that could keep the result from being stored.
    let text = format!(
        "import os, signal\n\
         def pytest_collection_finish():\n\
         \x20   signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
         \x20   with open({process:?}, 'w') as file:\n\
         \x20       file.write(f'{{os.getpid()}}.')\n\
         \x20   signal.sigwait([signal.SIGUSR1])\n\
         def pytest_unconfigure():\n\
         \x20   pass\n"
    );
    suite.dir.write("p/conftest.py", text);
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = None;
            while !has_ended.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&process).unwrap_or_default();
                let number: Option<i32> = text.strip_suffix('.').and_then(|text| text.parse().ok());
                if number.is_some() && number != last {
                    // The first process has read the file by now.
                    suite.dir.write("p/value.py", "VALUE = 2\n");
                    kill_process(number.and_then(Pid::from_raw).unwrap(), Signal::USR1).unwrap();
                    last = number;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        // With one worker, the process that collects runs both files.
        let run = || verdicts(&suite.greenwave(&["--jobs", "1", "--format", "json"]).run());
        let (first, second) = (run(), run());
        has_ended.store(true, Ordering::Relaxed);
        let verdict = |all: &[(String, bool, bool)]| all.iter().map(|it| it.1).collect::<Vec<bool>>();
        assert_eq!((verdict(&first), verdict(&second)), (vec![true, true], vec![false, true]));
    });
}
