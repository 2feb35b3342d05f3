//! Output on a terminal: colors, and a progress line below the other lines.

use std::fs::File;
use std::io::Read;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::program::{Finished, Program, until};
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

/// Runs a program with its standard output on a terminal. Returns everything that it wrote there.
pub(crate) fn on_terminal(program: Program) -> (Finished, String) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    tcsetwinsize(&controller, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    let running = program.variable("TERM", "xterm-256color").stdout(terminal).start();
    let reader = std::thread::spawn(move || {
        let (mut output, mut all, mut block) = (File::from(controller), Vec::new(), [0; 4096]);
        // Reading fails when the last writer has closed the terminal.
        while let Ok(count @ 1..) = output.read(&mut block) {
            all.extend_from_slice(&block[..count]);
        }
        String::from_utf8(all).unwrap()
    });
    (running.finish(), reader.join().unwrap())
}

#[test]
fn events_are_colored_above_a_progress_line() {
    let features = [
        ShellFeature::new("fine", "answer fine.txt x", "test -f fine.txt"),
        ShellFeature::new("bad", "echo no", "test -f bad.txt"),
    ];
    let dir = TestDir::with_project().with("plan.toml", shell_plan::plan(&features));
    let (finished, shown) = on_terminal(dir.greenwave(["run", "plan.toml", "--no-metrics"]));
    finished.with_code(1);
    for part in ["\x1b[31mred", "\x1b[33myellow", "\x1b[32mgreen", "0/2 green", "1/2 green", "\x1b[31mfailed"]
    {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    // Nobody can press keys, since standard input is not a terminal.
    assert!(!shown.contains("all keys"), "{shown:?}");
    // The progress line is removed before the table.
    let (_, table) = shown.rsplit_once("\x1b[2K").unwrap();
    assert!(table.contains("1 of 2 features green") && !table.contains("1/2 green"), "{table:?}");
}

/// On a terminal, somebody may be there to approve the feature.
#[test]
fn a_run_waits_for_an_approval() {
    let plan = shell_plan::plan(&[ShellFeature::new("one", "answer one.txt x", "test -f one.txt")]);
    let dir = TestDir::with_project().with("plan.toml", format!("hold = true\n{plan}"));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| on_terminal(dir.greenwave(["run", "plan.toml", "--no-metrics"])));
        until("the feature is held", || !dir.approvals("one", "held").is_empty());
        dir.greenwave(["approve", "plan.toml", "one"]).run().with_code(0);
        let (finished, shown) = run.join().unwrap();
        finished.with_code(0);
        assert!(shown.contains("needs you"), "{shown:?}");
        // The board has a line for it.
        assert!(shown.contains("  attempt 1   "), "{shown:?}");
    });
}

#[test]
fn json_has_no_colors_on_a_terminal() {
    let plan = shell_plan::plan(&[ShellFeature::new("one", "answer one.txt x", "test -f one.txt")]);
    let dir = TestDir::with_project().with("plan.toml", plan);
    let (finished, shown) = on_terminal(dir.plan());
    finished.with_code(0);
    assert!(shown.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

/// A test with a name and an output that would change the window's title, write to the clipboard,
/// clear the screen and forge a line.
const HOSTILE: &str = r#"
[[test]]
name = "hostile \u202Ename"
command = ["printf", '\033[31mred\033]0;title\007 \033]52;c;ZXZpbA==\007 \033[2J\033[1A\033[2K forged\033c\n']
"#;

/// Control sequences that the program writes itself, for its progress line.
const OWN_SEQUENCES: [&str; 2] = ["\x1b[2K", "\x1b[1A"];

#[test]
fn control_sequences_of_a_test_are_visible_text() {
    let dir = TestDir::empty().with("p/greenwave.toml", HOSTILE);
    let run = Program::new(["test", "--output", "all"])
        .within(&dir.path("p"))
        .variable("XDG_CACHE_HOME", dir.path("cache"));
    let (finished, shown) = on_terminal(run);
    finished.with_code(0);
    for part in ["\x1b[31mred␛]0;title␇ ␛]52;c;ZXZpbA==␇ ␛[2J␛[1A␛[2K forged␛c", r"\u{202e}name"]
    {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    let own = OWN_SEQUENCES.iter().fold(shown, |text, sequence| text.replace(sequence, ""));
    let mut rest = own.as_str();
    while let Some((_, after)) = rest.split_once('\x1b') {
        let end = after.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(after.len());
        assert!(after.starts_with('[') && after[end..].starts_with('m'), "{:?}", &after[..end]);
        rest = &after[end..];
    }
    assert!(!own.contains('\u{202e}'), "{own:?}");
}
