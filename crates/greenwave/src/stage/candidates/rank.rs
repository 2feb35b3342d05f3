//! Ranks the answers to an attempt, and says in words why one was chosen and another was not.

use std::collections::BTreeMap;

use crate::error::{FeatureError, chain};
use crate::stage::verdict::Verdict;

/// The criteria for an answer, in their order. The smallest is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) class: Class,
    /// Number of guards that fail.
    pub(super) guards: usize,
    /// Number of test commands from the failing one on.
    pub(super) tests: usize,
    /// Number of single tests that fail, if the runner counts them.
    pub(super) failed: u32,
    /// Number of lines that the answer adds and removes.
    pub(super) lines: usize,
    pub(super) number: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Passed,
    Failed,
    Refused,
    CouldNotRun,
}

/// An answer that was tested.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) rank: Rank,
    pub(super) verdict: Result<Verdict, FeatureError>,
    /// Number of single tests that passed, if the runners count them.
    pub(super) tests: Option<u32>,
}

/// Counts the lines that are added and removed between two contents.
pub(super) fn lines_between(before: &[u8], after: &[u8]) -> usize {
    let (Ok(before), Ok(after)) = (std::str::from_utf8(before), std::str::from_utf8(after)) else {
        return before.len().abs_diff(after.len()) / 80 + 1;
    };
    let patch = diffy::create_patch(before, after);
    let lines = patch.hunks().iter().flat_map(diffy::Hunk::lines);
    lines.filter(|line| !matches!(line, diffy::Line::Context(_))).count()
}

/// Says why an answer was chosen.
pub(super) fn describe_choice(best: Rank, judged: &BTreeMap<u32, Judged>) -> String {
    let others: Vec<Rank> = judged.values().map(|judged| judged.rank).filter(|rank| *rank != best).collect();
    let rivals: Vec<&Rank> = others.iter().filter(|rank| rank.class == best.class).collect();
    match best.class {
        Class::Passed if rivals.is_empty() => "only its tests pass".to_owned(),
        Class::Passed if rivals.iter().any(|rank| rank.guards > best.guards) => {
            "its tests pass, and it breaks the fewest guards".to_owned()
        }
        Class::Passed => {
            format!("its tests pass with the smallest change ({})", counted(best.lines, "line"))
        }
        _ if others.is_empty() => "no other answer can be used".to_owned(),
        _ => "no answer passes its tests, and this one comes closest".to_owned(),
    }
}

/// Returns a number with the word for that many things.
fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// Says why an answer was not chosen.
pub(super) fn describe_rejection(verdict: Result<&Verdict, &FeatureError>, rank: Rank, best: Rank) -> String {
    let chosen = best.number;
    match verdict {
        Ok(Verdict::Passed) if rank.guards > best.guards => {
            format!(
                "passed, and broke {}; candidate {chosen} broke {}",
                counted(rank.guards, "guard"),
                best.guards
            )
        }
        Ok(Verdict::Passed) => format!(
            "passed; the change of candidate {chosen} has {}, and this one {}",
            counted(best.lines, "line"),
            rank.lines
        ),
        Ok(Verdict::Failed { reason, .. } | Verdict::Refused { reason, .. }) => reason.clone(),
        Err(error) => chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_and_removed_lines_are_counted() {
        assert_eq!(lines_between(b"", b""), 0);
        assert_eq!(lines_between(b"a\nb\nc\n", b"a\nx\ny\nc\n"), 3);
        assert_eq!(lines_between(b"", b"a\nb\n"), 2);
        assert_eq!(lines_between(b"\xff", &[0xff; 801]), 11);
    }

    #[test]
    fn tests_decide_before_guards_and_guards_before_size() {
        let passed = Rank { class: Class::Passed, guards: 0, tests: 0, failed: 0, lines: 9, number: 3 };
        let small = Rank { lines: 1, number: 1, ..passed };
        let unguarded = Rank { guards: 1, ..small };
        let failed = Rank { class: Class::Failed, tests: 1, failed: 1, ..small };
        let mut ranks = [failed, unguarded, passed, small];
        ranks.sort_unstable();
        assert_eq!(ranks, [small, passed, unguarded, failed]);
        let later = Rank { tests: 1, failed: 7, ..failed };
        assert!(later < Rank { tests: 2, failed: 1, ..failed });
    }
}
