//! Finds the lines that matter in the output of common test runners, and the failing tests.

use std::collections::BTreeSet;

/// A test runner that is recognised by its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runner {
    Cargo,
    Pytest,
    Go,
    Node,
    Jest,
    Unknown,
}

/// Returns the lines that matter, and the names of the failing tests.
pub(super) fn relevant(text: &str) -> (String, BTreeSet<String>) {
    let runner = recognise(text);
    let failing = text.lines().filter_map(|line| failing_test(runner, line)).map(str::to_owned).collect();
    let mut lines = Vec::new();
    let mut skipped_block = None;
    for line in text.lines() {
        skipped_block = match skipped_block {
            Some(block) if block_continues(block, line) => continue,
            _ => starts_block(runner, line),
        };
        if skipped_block.is_none() && !is_noise(runner, line) {
            lines.push(line);
        }
    }
    lines.dedup_by(|a, b| a.is_empty() && b.is_empty());
    (lines.join("\n"), failing)
}

pub(super) fn recognise(text: &str) -> Runner {
    let any = |is: &dyn Fn(&str) -> bool| text.lines().any(is);
    if any(&|line| line.starts_with("test result: ") || line.trim_start().starts_with("Compiling "))
        || any(&|line| line.starts_with("error[E") || line.starts_with("error: could not compile"))
    {
        Runner::Cargo
    } else if any(&|line| line.starts_with("=====") && line.ends_with('=')) {
        Runner::Pytest
    } else if any(&|line| line.starts_with("FAIL\t") || line.trim_start().starts_with("--- FAIL: ")) {
        Runner::Go
    } else if any(&|line| line.starts_with("Tests:  ") || line.starts_with("Test Suites:")) {
        Runner::Jest
    } else if any(&|line| line.starts_with("TAP version") || line.trim_start().starts_with("✖ ")) {
        Runner::Node
    } else {
        Runner::Unknown
    }
}

/// Returns the name of the failing test that a line reports.
fn failing_test(runner: Runner, line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    let name = match runner {
        Runner::Cargo => match line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            Some(name) => name.trim_end_matches(" - should panic"),
            // cargo-nextest: `FAIL [   0.003s] package::binary test`
            None => trimmed.strip_prefix("FAIL [")?.split_once("] ")?.1,
        },
        Runner::Pytest => {
            let rest = line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR "))?;
            let name = rest.split_once(" - ").map_or(rest, |(name, _)| name);
            name.contains(['/', '.', ':']).then_some(name)?
        }
        Runner::Go => trimmed.strip_prefix("--- FAIL: ")?.split_once(" (").map_or(trimmed, |(name, _)| name),
        Runner::Jest => {
            trimmed.strip_prefix("● ").filter(|name| name.contains(" › ") || !name.ends_with(':'))?
        }
        Runner::Node => match trimmed.strip_prefix("not ok ") {
            Some(rest) => rest.split_once(" - ").map_or(rest, |(_, name)| name),
            None => {
                let name = trimmed.strip_prefix("✖ ")?;
                let name = name.rsplit_once(" (").map_or(name, |(name, _)| name);
                (name != "failing tests:").then_some(name)?
            }
        },
        Runner::Unknown => return None,
    };
    Some(name.trim()).filter(|name| !name.is_empty())
}

/// Block of several lines that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// A compiler's warning, up to an empty line.
    Warning,
    /// Details of a passing test in TAP, `---` to `...`.
    Tap,
}

fn starts_block(runner: Runner, line: &str) -> Option<Block> {
    match runner {
        Runner::Cargo if line.starts_with("warning: ") || line.starts_with("warning[") => {
            Some(Block::Warning)
        }
        Runner::Node if is_passing_tap(line) => Some(Block::Tap),
        _ => None,
    }
}

fn block_continues(block: Block, line: &str) -> bool {
    match block {
        Block::Warning => !line.trim().is_empty(),
        // The details of a passing test are indented more than its line, which starts with `ok`.
        Block::Tap => {
            let line = line.trim_start();
            line == "---" || line == "..." || line.starts_with("duration_ms:") || line.starts_with("type:")
        }
    }
}

fn is_passing_tap(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.strip_prefix("ok ");
    number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns whether a line is irrelevant to a failure.
fn is_noise(runner: Runner, line: &str) -> bool {
    let trimmed = line.trim_start();
    let starts = |words: &[&str]| words.iter().any(|word| trimmed.starts_with(word));
    match runner {
        Runner::Cargo => {
            let is_progress = line.starts_with(' ')
                && starts(&[
                    "Compiling ",
                    "Finished ",
                    "Running ",
                    "Checking ",
                    "Downloading ",
                    "Downloaded ",
                    "Updating ",
                    "Locking ",
                    "Doc-tests ",
                    "Blocking ",
                    "Building ",
                    "Fresh ",
                    "Adding ",
                    "PASS [",
                    "Starting ",
                ]);
            let is_passing =
                line.starts_with("test ") && (line.ends_with(" ... ok") || line.ends_with(" ... ignored"));
            is_progress
                || is_passing
                || line.starts_with("test result: ok.")
                || line.starts_with("note: run with `RUST_BACKTRACE=")
                || (line.starts_with("running ") && line.ends_with(" tests") && line.contains(" 0 "))
        }
        Runner::Pytest => {
            starts(&[
                "platform ",
                "cachedir:",
                "rootdir:",
                "configfile:",
                "plugins:",
                "collecting ",
                "collected ",
            ]) || (line.ends_with("%]") && !line.contains("FAILED"))
                || (trimmed.contains(" PASSED ") || trimmed.ends_with(" PASSED"))
                || (trimmed.starts_with("====") && trimmed.contains("test session starts"))
        }
        Runner::Go => {
            starts(&["=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME ", "--- PASS: ", "ok  \t", "?   \t"])
                || line == "PASS"
        }
        Runner::Jest => starts(&["PASS ", "✓ ", "Snapshots:", "Ran all test suites", "Time:", "> "]),
        Runner::Node => starts(&[
            "✔ ",
            "TAP version",
            "# Subtest:",
            "# duration_ms",
            "# cancelled 0",
            "# skipped 0",
            "# todo 0",
        ]),
        Runner::Unknown => false,
    }
}
