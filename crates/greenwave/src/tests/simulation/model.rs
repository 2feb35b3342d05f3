//! Predicts how the features of a script end.

use super::script::{Answer, Connect, FeatureScript, Guard, Red, Script};

/// Expected end of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Green,
    Failed,
    Skipped,
    /// Green, failed or skipped, depending on the order of merges.
    Any,
}

impl End {
    /// Returns whether a report may have this phase.
    pub(super) fn allows(self, phase: &str) -> bool {
        match self {
            End::Green => phase == "green",
            End::Failed => phase == "failed",
            End::Skipped => phase == "skipped",
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

/// Returns the answer to an attempt, from 1.
pub(super) fn answer(feature: &FeatureScript, attempt: u32) -> Answer {
    feature.answers[(attempt as usize - 1).min(feature.answers.len() - 1)]
}

/// Predicts the end of a feature whose dependencies are green.
fn alone(script: &Script, at: usize) -> End {
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
    for attempt in 1..=feature.attempts_max {
        match answer(feature, attempt) {
            Answer::Good | Answer::Deletes | Answer::Flaky => return End::Green,
            Answer::Unguarded if script.guard != Guard::Passes => return End::Green,
            Answer::Shared => {
                // Each rival can be merged first, which costs an attempt.
                let left = (feature.attempts_max - attempt) as usize;
                let goes_on = (attempt..=feature.attempts_max)
                    .all(|attempt| answer(feature, attempt) == Answer::Shared);
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
    let has_other_answers = feature.answers.len() > feature.attempts_max as usize;
    if has_other_answers && !script.interruptions.is_empty() { End::Any } else { End::Failed }
}
