//! Rules for the way in which a process ended, for all programs.

use std::sync::LazyLock;

use greenwave_testing::{ExitReason, Status};
use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, missing_operand};

/// Signal of `abort`, which failed assertions of C and C++ raise.
const SIGABRT: i32 = 6;
/// Exit codes of shells for a program that cannot be executed, and for one that does not exist.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// Exit code of the program `timeout` after the time has passed.
const TIMED_OUT: i32 = 124;
/// Offset of the exit code with which a shell reports a signal.
const SIGNALLED: i32 = 128;
/// Signals that shells report by an exit code: SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGKILL,
/// SIGSEGV, SIGTERM.
const SIGNALS: [i32; 8] = [3, 4, 6, 7, 8, 9, 11, 15];

static MISSING: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^(?:[^\n]*?: )?(?:line )?(?:[0-9]+: )?(?:exec: )?['‘]?([^\s:'’]+)['’]?: (?:(?:command )?not found|No such file or directory|Permission denied|cannot execute[^\n]*)\s*$",
    )
});
static PORT: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?i)\bEADDRINUSE\b|address (?:is )?already in use|\bAddrInUse\b|port [0-9]+ is (?:already )?(?:in use|allocated)",
    )
});
static DISK_FULL: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?i)no space left on device|\bENOSPC\b|disk quota exceeded"));
static ASSERTION: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?i)assertion|assert failed|terminate called|panicked at"));

/// Returns whether a test failed since another process holds a port that it binds.
pub(crate) fn has_port_conflict(output: &str) -> bool {
    PORT.is_match(output)
}

/// Returns whether a command ended without doing its work: its program or a program that it starts
/// cannot be executed, or it was killed.
pub(crate) fn is_broken_command(status: Status) -> bool {
    matches!(status, Status::Failed(ExitReason::Code(NOT_EXECUTABLE | NOT_FOUND) | ExitReason::Signal(_)))
}

/// Classifies the end of the process; `None` if the output decides.
pub(super) fn finding(failed: &FailedTest<'_>, project: &ProjectNames) -> Option<Finding> {
    let output = failed.output;
    let code = match failed.status {
        Status::TimedOut(limit) => {
            let hint = "raise `time_limit`, or find out what the test waits for";
            let limit = humantime::format_duration(limit);
            return Some(Obstacle::killed(format!("did not end within {limit} and was killed"), hint).into());
        }
        Status::Failed(ExitReason::Signal(signal)) => return Some(by_signal(signal, output)),
        Status::Failed(ExitReason::Unfinished) => {
            let hint = "find out which code calls `exit`, and remove the call";
            return Some(Obstacle::new("exited with code 0 before its tests had ended", hint).into());
        }
        Status::Failed(ExitReason::Code(code)) => code,
        Status::Failed(ExitReason::Report) | Status::Passed | Status::NoTests => return None,
    };
    if DISK_FULL.is_match(output) {
        return Some(Obstacle::new("cannot run: no space is left on the disk", "free disk space").into());
    }
    match code {
        NOT_FOUND | NOT_EXECUTABLE => Some(not_started(code, output, failed, project)),
        TIMED_OUT if has_word(failed.command, "timeout") => {
            let hint = "raise the time of `timeout`, or find out what the test waits for";
            Some(Obstacle::killed("did not end within the time of `timeout`", hint).into())
        }
        code if code > SIGNALLED && SIGNALS.contains(&(code - SIGNALLED)) => {
            Some(by_signal(code - SIGNALLED, output))
        }
        _ => None,
    }
}

/// Returns whether a command, or a line of shell in it, has a word.
fn has_word(command: &[String], word: &str) -> bool {
    command.iter().flat_map(|argument| argument.split_whitespace()).any(|found| found == word)
}

fn by_signal(signal: i32, output: &str) -> Finding {
    if signal == SIGABRT && ASSERTION.is_match(output) {
        return Finding::Genuine;
    }
    let hint = match signal {
        9 => "check the memory limit: the kernel kills processes that exceed it",
        _ => "run the test's command by hand to find out why",
    };
    Obstacle::killed(format!("was ended by signal {signal}"), hint).into()
}

fn not_started(code: i32, output: &str, failed: &FailedTest<'_>, project: &ProjectNames) -> Finding {
    let name = MISSING.captures_iter(output).last().map(|found| found[1].to_owned());
    let Some(name) = name else {
        let hint = "install the program that the test's command starts, or correct the command";
        let problem = format!("cannot run: a program that it starts is missing (exit code {code})");
        return Obstacle::new(problem, hint).into();
    };
    let is_operand = name.contains('.') && failed.command.iter().skip(1).any(|word| *word == name);
    if name.contains('/') || is_operand {
        if code == NOT_FOUND {
            return missing_operand(&name, project);
        }
        if project.mentions_path(&name) && !crate::test_files::is_test_script(&name) {
            return Finding::Genuine;
        }
        let hint = format!("make it executable: chmod +x {name}");
        return Obstacle::new(format!("cannot run: `{name}` is not executable"), hint).into();
    }
    if project.mentions_path(&name) && !output.contains("Permission denied") && project.has_module(&name) {
        return Finding::Genuine;
    }
    let hint = format!("install `{name}`, or correct the test's command");
    Obstacle::new(format!("cannot run: program `{name}` is not found"), hint).into()
}
