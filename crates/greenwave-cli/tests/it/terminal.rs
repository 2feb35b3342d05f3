//! Output on a terminal: colours, and one progress line below the others.

use std::fs::File;
use std::io::Read;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::folder::Folder;
use crate::program::{Finished, Program};
use crate::sketch::{self, Sketch};

/// Runs a program with its standard output on a terminal, and gives everything that came there.
fn on_terminal(program: Program) -> (Finished, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    let running = program.variable("TERM", "xterm-256color").stdout(theirs).start();
    let reader = std::thread::spawn(move || {
        let (mut ours, mut all, mut block) = (File::from(ours), Vec::new(), [0; 4096]);
        // When the last who writes has gone, reading fails.
        while let Ok(count @ 1..) = ours.read(&mut block) {
            all.extend_from_slice(&block[..count]);
        }
        String::from_utf8(all).unwrap()
    });
    (running.finish(), reader.join().unwrap())
}

#[test]
fn colours_and_a_progress_line() {
    let features = [
        Sketch::new("fine", "answer fine.txt x", "test -f fine.txt"),
        Sketch::new("bad", "echo no", "test -f bad.txt"),
    ];
    let folder = Folder::with_project().with("plan.toml", sketch::plan(&features));
    let (finished, shown) = on_terminal(folder.greenwave(["run", "plan.toml", "--no-metrics"]));
    finished.with_code(1);
    for part in ["\x1b[31mred", "\x1b[33myellow", "\x1b[32mgreen", "0/2 green", "1/2 green", "\x1b[31mfailed"]
    {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    // The progress line is gone when the table stands there.
    let (_, table) = shown.rsplit_once("\x1b[2K").unwrap();
    assert!(table.contains("1 of 2 features green") && !table.contains("1/2 green"), "{table:?}");
}

#[test]
fn json_is_the_same_everywhere() {
    let plan = sketch::plan(&[Sketch::new("one", "answer one.txt x", "test -f one.txt")]);
    let folder = Folder::with_project().with("plan.toml", plan);
    let (finished, shown) = on_terminal(folder.plan());
    finished.with_code(0);
    assert!(shown.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}
