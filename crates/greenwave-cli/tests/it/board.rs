//! The board of a run on a terminal, and its keys.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::program::{Finished, Program, Running, until};
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

/// A program with all its standard streams on a terminal.
struct OnTerminal {
    running: Running,
    controller: File,
    /// Held open, so that the controller can always be read and asked.
    terminal: File,
    shown: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl OnTerminal {
    fn start(program: Program) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        tcsetwinsize(&controller, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let stream = || terminal.try_clone().unwrap();
        let program = program.variable("TERM", "xterm-256color");
        let running = program.stdin(stream()).stdout(stream()).stderr(stream()).start();
        let (controller, shown) = (File::from(controller), Arc::new(Mutex::new(String::new())));
        let (mut output, all) = (controller.try_clone().unwrap(), Arc::clone(&shown));
        let reader = spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut block) {
                let text = String::from_utf8_lossy(&block[..count]);
                all.lock().push_str(&console::strip_ansi_codes(&text));
            }
        });
        Self { running, controller, terminal, shown, reader }
    }

    fn press(&mut self, keys: &str) {
        self.controller.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text was shown since the last call, and forgets everything before it.
    #[track_caller]
    fn sees(&self, text: &str) {
        until(text, || {
            let mut shown = self.shown.lock();
            let found = shown.find(text).map(|at| at + text.len());
            found.is_some_and(|end| shown.drain(..end).count() > 0)
        });
    }

    /// Returns whether the terminal delivers lines and shows keys, as usual.
    fn is_as_usual(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        assert_eq!(modes.contains(LocalModes::ICANON), modes.contains(LocalModes::ECHO));
        assert!(modes.contains(LocalModes::ISIG));
        modes.contains(LocalModes::ICANON)
    }

    /// Returns whether the program is suspended.
    fn is_suspended(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.running.id())).unwrap();
        status.rsplit_once(") ").unwrap().1.starts_with('T')
    }

    fn finish(self) -> Finished {
        let Self { running, terminal, reader, .. } = self;
        let finished = running.finish();
        let modes = tcgetattr(&terminal).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
        drop(terminal);
        reader.join().unwrap();
        finished
    }
}

/// An agent that prints a line, and answers once the test creates a file.
fn waiting(dir: &TestDir, id: &str) -> ShellFeature {
    let go = dir.path(&format!("go-{id}"));
    let script = format!("echo hello from {id}; while ! test -f {}; do sleep 0.02; done", go.display());
    ShellFeature::new(id, &format!("{script}; answer {id}.txt x"), &format!("test -f {id}.txt"))
}

fn run(dir: &TestDir) -> OnTerminal {
    OnTerminal::start(dir.greenwave(["run", "plan.toml", "--no-metrics"]))
}

#[test]
fn keys_show_details_stop_and_hold_features() {
    let dir = TestDir::with_project();
    let features = [waiting(&dir, "one"), waiting(&dir, "two")];
    dir.write("plan.toml", shell_plan::unconfined(&features));
    let mut board = run(&dir);
    // The board shows the last line of each agent, and marks the first feature.
    board.sees("> one  yellow    attempt 1");
    board.sees("hello from two");
    board.press("\r");
    board.sees("one: last lines of the agent:");
    board.sees("| hello from one");
    board.sees("no attempt has ended");
    board.press("?");
    board.sees("pause or resume");
    board.press("\x1b");
    board.press("\x1b[B");
    board.sees("> two");
    board.press("s");
    board.sees("press s again to stop two");
    board.press("s");
    board.sees("stopped by you");
    board.press("h");
    board.sees("one is held before its merge");
    dir.write("go-one", "");
    board.sees("needs you");
    board.press("q");
    board.sees("To continue: greenwave run plan.toml");
    board.finish().with_code(130);
    assert!(!dir.path("project/one.txt").exists());
    // The next run holds it too, although the plan does not say so.
    dir.write("go-two", "");
    let finished = dir.run_plan().with_code(3);
    assert_eq!(shell_plan::Report::of(&finished).phases(), [("one", "held"), ("two", "green")]);
    dir.greenwave(["approve", "plan.toml", "one"]).run().with_code(0);
    dir.run_plan().with_code(0);
}

#[test]
fn keys_approve_and_reject_features_that_are_held() {
    let dir = TestDir::with_project();
    let prompts = dir.path("prompts");
    // The second answer differs from the first, which would be refused as a repetition.
    let two = format!("cat >> {0}; answer two.txt $(wc -c < {0})", prompts.display());
    let features = [
        ShellFeature::new("one", "answer one.txt x", "test -f one.txt"),
        waiting(&dir, "other"),
        ShellFeature::new("two", &two, "test -f two.txt"),
    ];
    dir.write("plan.toml", format!("hold = true\n{}", shell_plan::unconfined(&features)));
    let mut board = run(&dir);
    board.sees("> one  ");
    board.sees("waiting for your approval; a: approve, x: reject");
    board.press("a");
    board.sees("attempt 1 of one is approved");
    until("one is merged", || dir.path("project/one.txt").exists());
    // A feature that is not held has nothing to decide.
    board.sees("> other  ");
    board.press("a");
    board.sees("other does not wait for your approval");
    board.press("x");
    board.sees("other does not wait for your approval");
    board.press("\x1b[B");
    board.sees("> two    held      attempt 1");
    board.press("x");
    board.sees("comment for two (Enter: reject, Esc: cancel): _");
    board.press("no\x1b");
    board.sees("two is not rejected");
    board.press("x");
    board.press("Use shp\x7forter names.");
    board.sees("cancel): Use shorter names._");
    board.press("\r");
    board.sees("attempt 1 of two is rejected");
    board.sees("rejected by the user: Use shorter names.");
    board.sees("> two    held      attempt 2");
    assert!(fs::read_to_string(&prompts).unwrap().contains("Use shorter names."));
    assert!(!dir.path("project/two.txt").exists());
    board.press("a");
    board.sees("attempt 2 of two is approved");
    until("two is merged", || dir.path("project/two.txt").exists());
    dir.write("go-other", "");
    board.sees("> other  held");
    board.press("a");
    board.finish().with_code(0);
    assert!(dir.path("project/other.txt").exists());
}

#[test]
fn a_paused_run_begins_nothing() {
    let dir = TestDir::with_project();
    let tested = dir.path("tested");
    let (begun, go) = (dir.path("begun"), dir.path("go-one"));
    let script = format!("touch {}; while ! test -f {}; do sleep 0.02; done", begun.display(), go.display());
    let test = format!("test -f one.txt && touch {}", tested.display());
    let answered = dir.path("answered");
    let script = format!("{script}; answer one.txt x; touch {}", answered.display());
    dir.write("plan.toml", shell_plan::unconfined(&[ShellFeature::new("one", &script, &test)]));
    let mut board = run(&dir);
    // A feature is yellow shortly before its agent begins, and none begins during a pause.
    until("the agent has begun", || begun.exists());
    board.press("p");
    board.sees("paused; p: resume");
    dir.write("go-one", "");
    until("the agent has answered", || answered.exists());
    sleep(Duration::from_millis(100));
    assert!(!tested.exists());
    board.press("p");
    board.finish().with_code(0);
    assert!(tested.exists() && dir.path("project/one.txt").exists());
}

#[test]
fn the_terminal_is_as_usual_while_the_program_does_not_read_keys() {
    let dir = TestDir::with_project();
    dir.write("plan.toml", shell_plan::unconfined(&[waiting(&dir, "one")]));
    let board = run(&dir);
    board.sees("hello from one");
    assert!(!board.is_as_usual());
    board.running.signal(Signal::TSTP);
    until("the program is suspended", || board.is_suspended());
    assert!(board.is_as_usual());
    board.running.signal(Signal::CONT);
    until("keys are read again", || !board.is_as_usual());
    board.running.signal(Signal::INT);
    board.finish().with_code(130);
}
