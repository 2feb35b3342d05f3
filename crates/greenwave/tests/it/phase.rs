//! What a feature can go through, whatever happens to it.

use greenwave::{FeaturePolicy, Phase, PhaseEvent};
use proptest::prelude::*;

const HAPPENINGS: [PhaseEvent; 7] = [
    PhaseEvent::Started,
    PhaseEvent::Resumed,
    PhaseEvent::TestsFailed,
    PhaseEvent::Answered,
    PhaseEvent::Passed,
    PhaseEvent::Refused,
    PhaseEvent::AncestorFailed,
];

fn happenings() -> impl Strategy<Value = Vec<PhaseEvent>> {
    // What moves a feature on is more likely, or hardly any would come far.
    let forward = prop_oneof![
        Just(PhaseEvent::Started),
        Just(PhaseEvent::TestsFailed),
        Just(PhaseEvent::Answered),
        Just(PhaseEvent::Passed),
        Just(PhaseEvent::Refused),
    ];
    proptest::collection::vec(
        prop_oneof![4 => forward, 1 => proptest::sample::select(&HAPPENINGS[..])],
        0..40,
    )
}

fn course() -> impl Strategy<Value = FeaturePolicy> {
    (1..5u32, any::<bool>()).prop_map(|(attempts_max, review)| FeaturePolicy { attempts_max, review })
}

/// The phases that a feature goes through from the beginning, each once where it stays.
fn path(happenings: &[PhaseEvent], course: FeaturePolicy) -> Vec<Phase> {
    let mut path = vec![Phase::Waiting];
    for happening in happenings {
        path.push(path[path.len() - 1].after(*happening, course));
    }
    path.dedup();
    path
}

fn is_last(phase: Phase) -> bool {
    matches!(phase, Phase::Green(_) | Phase::Failed | Phase::Skipped)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_leads_out_of_an_end(happenings in happenings(), course in course()) {
        let path = path(&happenings, course);
        if let Some(end) = path.iter().position(|phase| is_last(*phase)) {
            prop_assert_eq!(end, path.len() - 1, "{:?}", path);
        }
    }

    #[test]
    fn attempts_are_counted_and_bounded(happenings in happenings(), course in course()) {
        let path = path(&happenings, course);
        for (before, after) in path.iter().zip(&path[1..]) {
            prop_assert!(after.attempt() <= course.attempts_max, "{:?}", path);
            let is_next = after.attempt() == before.attempt() + 1;
            let asks = matches!(after, Phase::Prompting(_));
            // A new attempt begins with asking, and a feature keeps its attempt until it ends badly.
            let ends = matches!(after, Phase::Failed | Phase::Skipped);
            prop_assert!(ends || (asks && is_next) || (!asks && after.attempt() == before.attempt()), "{:?}", path);
        }
    }

    #[test]
    fn green_only_by_way_of_red_and_its_tests(happenings in happenings(), course in course()) {
        let path = path(&happenings, course);
        let Some(Phase::Green(attempt)) = path.last().copied() else { return Ok(()) };
        if attempt == 0 {
            prop_assert_eq!(&path[..], &[Phase::Waiting, Phase::Checking, Phase::Green(0)]);
            return Ok(());
        }
        let at = |phase: Phase| path.iter().position(|other| *other == phase);
        let way = [Phase::Red, Phase::Prompting(attempt), Phase::Testing(attempt), Phase::Merging(attempt)];
        let places: Vec<_> = way.into_iter().map(at).collect();
        prop_assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{:?}", path);
        let reviewed = at(Phase::Reviewing(attempt)).is_some();
        prop_assert_eq!(reviewed, course.review, "{:?}", path);
    }

    /// Skipped is only what was never begun, and what is broken fails wherever it is.
    #[test]
    fn bad_ends(happenings in happenings(), course in course()) {
        let path = path(&happenings, course);
        let now = path[path.len() - 1];
        if now == Phase::Skipped {
            prop_assert_eq!(&path[..], &[Phase::Waiting, Phase::Skipped]);
        }
        prop_assert_eq!(now.after(PhaseEvent::AncestorFailed, course) == Phase::Skipped, matches!(now, Phase::Waiting | Phase::Skipped));
    }
}

/// So that the properties above are not about nothing.
#[test]
fn the_usual_way() {
    use PhaseEvent as H;
    let course = FeaturePolicy { attempts_max: 2, review: true };
    let happenings =
        [H::Started, H::TestsFailed, H::Answered, H::Refused, H::Answered, H::Passed, H::Passed, H::Passed];
    let lights: Vec<_> = path(&happenings, course).into_iter().map(|phase| phase.to_string()).collect();
    assert_eq!(
        lights,
        ["waiting", "red", "yellow", "yellow", "yellow", "yellow", "review", "merging", "green"]
    );
    let failed = path(&[H::Started, H::TestsFailed, H::Refused, H::Answered, H::Refused], course);
    assert_eq!(failed.last(), Some(&Phase::Failed));
}
