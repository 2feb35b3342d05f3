//! Predicts how the features of a script end.

use super::script::{Answer, Connect, FeatureScript, Guard, Hold, Red, Script, TestAnswer};

/// Expected end of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Green,
    Failed,
    Skipped,
    /// Held: the user does not decide.
    Held,
    /// Waiting for a feature that is held.
    Waiting,
    /// Green, failed or skipped, depending on the order of merges.
    Any,
    /// Like `Any`, or held, or waiting for a held feature.
    AnyOrHeld,
}

impl End {
    /// Returns whether a report may have this phase.
    pub(super) fn allows(self, phase: &str) -> bool {
        match self {
            End::Green => phase == "green",
            End::Failed => phase == "failed",
            End::Skipped => phase == "skipped",
            End::Held => phase == "held",
            End::Waiting => phase == "waiting",
            End::AnyOrHeld => ["green", "failed", "skipped", "held", "waiting"].contains(&phase),
            End::Any => ["green", "failed", "skipped"].contains(&phase),
        }
    }
}

/// Predicts the end of each feature.
pub(super) fn ends(script: &Script) -> Vec<End> {
    let mut ends: Vec<End> = Vec::new();
    for (at, feature) in script.features.iter().enumerate() {
        let needs: Vec<End> = feature.depends_on.iter().map(|&other| ends[other]).collect();
        let end = if needs.iter().any(|end| matches!(end, End::Failed | End::Skipped)) {
            End::Skipped
        } else {
            match alone(script, at) {
                own if needs.iter().all(|&end| end == End::Green) => own,
                _ if needs.iter().all(|end| matches!(end, End::Green | End::Held | End::Waiting)) => {
                    End::Waiting
                }
                _ if needs.iter().any(|end| matches!(end, End::Held | End::Waiting | End::AnyOrHeld)) => {
                    End::AnyOrHeld
                }
                _ => End::Any,
            }
        };
        ends.push(end);
    }
    ends
}

/// Returns whether one feature depends on another, directly or indirectly.
pub(super) fn depends(script: &Script, feature: usize, other: usize) -> bool {
    script.features[feature].depends_on.iter().any(|&next| next == other || depends(script, next, other))
}

/// Returns the answer of the agent that writes tests to an attempt, from 1.
pub(super) fn test_answer(feature: &FeatureScript, attempt: u32) -> TestAnswer {
    feature.written[(attempt as usize - 1).min(feature.written.len() - 1)]
}

/// Returns the number of attempts at the tests until they are accepted, 0 if the plan has the
/// tests. Returns `None` if they are never accepted.
pub(super) fn attempts_at_tests(feature: &FeatureScript) -> Option<u32> {
    if feature.written.is_empty() {
        return Some(0);
    }
    let accepted = feature.written.iter().position(|answer| *answer == TestAnswer::Good)?;
    Some(accepted as u32 + 1)
}

/// Returns the answer to an attempt at the code, from 1.
pub(super) fn answer(feature: &FeatureScript, attempt: u32) -> Answer {
    feature.answers[(attempt as usize - 1).min(feature.answers.len() - 1)]
}

/// Returns the answer of a candidate to an attempt, both from 1.
pub(super) fn answer_of(feature: &FeatureScript, attempt: u32, candidate: u32) -> Answer {
    match candidate.checked_sub(2) {
        Some(rival) => feature.rivals[rival as usize],
        None => answer(feature, attempt),
    }
}

/// Returns the answer that is chosen for an attempt. An attempt without an answer that passes ends
/// like one with the answer that is returned.
fn chosen(script: &Script, feature: &FeatureScript, attempt: u32) -> Answer {
    use Answer as A;
    let all = || (1..=1 + feature.rivals.len() as u32).map(|at| answer_of(feature, attempt, at));
    if let Some(panic) = all().find(|answer| matches!(answer, A::TestPanics | A::CallPanics)) {
        return panic;
    }
    let rank = |answer: &Answer| {
        let breaks_guard = *answer == A::Unguarded && script.guard == Guard::Passes;
        (breaks_guard, matches!(answer, A::Shared | A::Deletes))
    };
    let passes = |answer: &Answer| {
        let passes = matches!(answer, A::Good | A::Shared | A::Breaks(_) | A::Deletes | A::Flaky);
        passes || matches!(answer, A::Unguarded | A::BadJoined | A::Unreviewed)
    };
    if let Some(best) = all().filter(passes).min_by_key(rank) {
        return best;
    }
    // The agent cannot work, the answer cannot be used, its test cannot run.
    let is_out = |answer: &Answer| *answer == A::RefusesForGood;
    let is_unusable = |answer: &Answer| {
        matches!(answer, A::Garbage | A::Edit | A::Diff | A::Nested | A::Outside | A::Refuses)
            || matches!(answer, A::BreaksOff | A::BreaksOffLate | A::CallHangs | A::StreamPanics)
            || *answer == A::StreamHangs
    };
    let mut tested = all().filter(|answer| !is_out(answer) && !is_unusable(answer));
    match (tested.next(), all().find(is_unusable)) {
        (Some(A::TestBroken), _) => tested.find(|answer| *answer != A::TestBroken).unwrap_or(A::TestBroken),
        (Some(other), _) => other,
        (None, Some(unusable)) => unusable,
        (None, None) => A::RefusesForGood,
    }
}

/// Predicts the end of a feature whose dependencies are green.
fn alone(script: &Script, at: usize) -> End {
    let feature = &script.features[at];
    match attempts_at_tests(feature) {
        Some(attempts) if attempts <= feature.attempts_max => {}
        // A run after an interrupted one has further attempts.
        Some(_) if !script.interruptions.is_empty() => return End::AnyOrHeld,
        _ => return End::Failed,
    }
    match feature.hold {
        Hold::No => merged(script, at, 1),
        // Another feature can break its test before it is held, or the base of the next run.
        Hold::Undecided if is_broken_by_another(script, at) => End::AnyOrHeld,
        // The order of merges does not matter to an answer that is not merged.
        Hold::Undecided if feature.connect == Connect::FailsOnce => End::AnyOrHeld,
        Hold::Undecided => match first_held(script, feature) {
            Some(_) if is_tried(feature) => End::Held,
            _ if !script.interruptions.is_empty() => End::AnyOrHeld,
            _ => End::Failed,
        },
        // Decisions can come after the run.
        _ if !script.waits_for_approval() => End::AnyOrHeld,
        Hold::Approved => merged(script, at, 1),
        Hold::Rejected => match first_held(script, feature) {
            // The file that breaks a test stays in the workspace.
            Some(attempt)
                if matches!(chosen(script, feature, attempt), Answer::Breaks(_) | Answer::Unguarded) =>
            {
                End::Any
            }
            Some(attempt) if is_tried(feature) && feature.connect == Connect::Opens => {
                merged(script, at, attempt + 1)
            }
            _ => merged(script, at, 1),
        },
    }
}

/// Returns whether a feature that does not wait for this one can break its test.
fn is_broken_by_another(script: &Script, at: usize) -> bool {
    let features = script.features.iter().enumerate();
    let breaks = |feature: &FeatureScript| feature.answers.contains(&Answer::Breaks(at));
    features.into_iter().any(|(other, feature)| breaks(feature) && !depends(script, other, at))
}

/// Returns whether the agent gets to answer.
fn is_tried(feature: &FeatureScript) -> bool {
    feature.red == Red::Fails && matches!(feature.connect, Connect::Opens | Connect::FailsOnce)
}

/// Returns the first attempt whose answer passes before its merge.
fn first_held(script: &Script, feature: &FeatureScript) -> Option<u32> {
    for attempt in 1..=feature.attempts_max {
        match chosen(script, feature, attempt) {
            Answer::Good
            | Answer::Shared
            | Answer::Breaks(_)
            | Answer::Deletes
            | Answer::Flaky
            | Answer::Unguarded
            | Answer::BadJoined => return Some(attempt),
            Answer::Unreviewed if !feature.review => return Some(attempt),
            Answer::TestPanics | Answer::TestBroken | Answer::RefusesForGood | Answer::CallPanics => {
                return None;
            }
            _ => {}
        }
    }
    None
}

/// Predicts the end of a feature whose answers from this attempt on are merged.
fn merged(script: &Script, at: usize, first: u32) -> End {
    let feature = &script.features[at];
    if feature.red != Red::Fails {
        return End::Failed;
    }
    match feature.connect {
        Connect::Opens => {}
        Connect::FailsOnce if feature.answers == [Answer::Good] && feature.attempts_max > 1 => {}
        Connect::FailsOnce => return End::Any,
        Connect::Fails | Connect::Panics | Connect::Hangs => return End::Failed,
    }
    // A feature that breaks the test of another one can be merged before or after it.
    let breaks =
        |other: usize, broken: usize| script.features[other].answers.contains(&Answer::Breaks(broken));
    let features = 0..script.features.len();
    let is_related = |other: usize| depends(script, at, other) || depends(script, other, at);
    if features.clone().any(|other| breaks(other, at) && !depends(script, other, at)) {
        return End::Any;
    }
    if features.clone().any(|other| breaks(at, other) && !depends(script, at, other)) {
        return End::Any;
    }
    let sharing = |other: usize| script.features[other].answers.contains(&Answer::Shared);
    let rivals = features.filter(|&other| other != at && sharing(other) && !is_related(other)).count();
    let last = first - 1 + feature.attempts_max;
    for attempt in first..=last {
        match chosen(script, feature, attempt) {
            Answer::Good | Answer::Deletes | Answer::Flaky => return End::Green,
            Answer::Unguarded if script.guard != Guard::Passes => return End::Green,
            Answer::Shared => {
                // Each rival can be merged first, which costs an attempt.
                let left = (last - attempt) as usize;
                let goes_on =
                    (attempt..=last).all(|attempt| chosen(script, feature, attempt) == Answer::Shared);
                return if rivals == 0 || (left >= rivals && goes_on) { End::Green } else { End::Any };
            }
            Answer::Unreviewed if !feature.review => return End::Green,
            Answer::TestPanics | Answer::TestBroken | Answer::RefusesForGood | Answer::CallPanics => {
                return End::Failed;
            }
            // It breaks the test of a dependency, which is green.
            Answer::Breaks(_)
            | Answer::Protected
            | Answer::Unguarded
            | Answer::Unreviewed
            | Answer::Bad
            | Answer::BadJoined
            | Answer::TestHangs
            | Answer::Garbage
            | Answer::Edit
            | Answer::Diff
            | Answer::Nested
            | Answer::Outside
            | Answer::BreaksOff
            | Answer::BreaksOffLate
            | Answer::Refuses
            | Answer::CallHangs
            | Answer::StreamPanics
            | Answer::StreamHangs => {}
        }
    }
    // A run that is interrupted after the last attempt and before its end is followed by another
    // one, which has further attempts.
    let has_other_answers = feature.answers.len() > last as usize;
    if has_other_answers && !script.interruptions.is_empty() { End::Any } else { End::Failed }
}
