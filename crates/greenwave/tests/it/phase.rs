//! Properties of the phase rules under random sequences of events.

use greenwave::{FeaturePolicy, Phase, PhaseEvent};
use proptest::prelude::*;

const EVENTS: [PhaseEvent; 9] = [
    PhaseEvent::Elected,
    PhaseEvent::Approved,
    PhaseEvent::Started,
    PhaseEvent::Resumed,
    PhaseEvent::TestsFailed,
    PhaseEvent::Answered,
    PhaseEvent::Passed,
    PhaseEvent::Refused,
    PhaseEvent::AncestorFailed,
];

fn events() -> impl Strategy<Value = Vec<PhaseEvent>> {
    // Events that move a feature forward are more likely. Otherwise few sequences would get far.
    let forward = prop_oneof![
        Just(PhaseEvent::Started),
        Just(PhaseEvent::TestsFailed),
        Just(PhaseEvent::Answered),
        Just(PhaseEvent::Passed),
        Just(PhaseEvent::Elected),
        Just(PhaseEvent::Approved),
        Just(PhaseEvent::Refused),
    ];
    proptest::collection::vec(prop_oneof![4 => forward, 1 => proptest::sample::select(&EVENTS[..])], 0..40)
}

fn policy() -> impl Strategy<Value = FeaturePolicy> {
    (1..5u32, any::<bool>(), any::<bool>()).prop_map(|(attempts_max, review, hold)| FeaturePolicy {
        attempts_max,
        review,
        hold,
    })
}

/// Returns the phases of a feature from the start, without repetitions.
fn path(events: &[PhaseEvent], policy: FeaturePolicy) -> Vec<Phase> {
    let mut path = vec![Phase::Waiting];
    for event in events {
        path.push(path[path.len() - 1].after(*event, policy));
    }
    path.dedup();
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_event_leads_out_of_a_final_phase(events in events(), policy in policy()) {
        let path = path(&events, policy);
        if let Some(end) = path.iter().position(|phase| phase.is_final()) {
            prop_assert_eq!(end, path.len() - 1, "{:?}", path);
        }
    }

    #[test]
    fn attempts_are_counted_and_bounded(events in events(), policy in policy()) {
        let path = path(&events, policy);
        for (before, after) in path.iter().zip(&path[1..]) {
            prop_assert!(after.attempt() <= policy.attempts_max, "{:?}", path);
            let is_next = after.attempt() == before.attempt() + 1;
            let prompts = matches!(after, Phase::Prompting(_));
            // A new attempt starts with a prompt. A feature keeps its attempt until it fails.
            let ends = matches!(after, Phase::Failed | Phase::Skipped);
            prop_assert!(ends || (prompts && is_next) || (!prompts && after.attempt() == before.attempt()), "{:?}", path);
        }
    }

    #[test]
    fn a_green_feature_was_red_and_passed_its_tests(events in events(), policy in policy()) {
        let path = path(&events, policy);
        let Some(Phase::Green(attempt)) = path.last().copied() else { return Ok(()) };
        if attempt == 0 {
            prop_assert_eq!(&path[..], &[Phase::Waiting, Phase::Checking, Phase::Green(0)]);
            return Ok(());
        }
        let at = |phase: Phase| path.iter().position(|other| *other == phase);
        let required = [Phase::Red, Phase::Prompting(attempt), Phase::Testing(attempt), Phase::Queued(attempt)];
        let order: Vec<_> = required.into_iter().map(at).collect();
        prop_assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{:?}", path);
        let reviewed = at(Phase::Reviewing(attempt)).is_some();
        prop_assert_eq!(reviewed, policy.review, "{:?}", path);
        let held = at(Phase::Held(attempt)).is_some();
        prop_assert_eq!(held, policy.hold, "{:?}", path);
    }

    #[test]
    fn only_waiting_features_are_skipped(events in events(), policy in policy()) {
        let path = path(&events, policy);
        let now = path[path.len() - 1];
        if now == Phase::Skipped {
            prop_assert_eq!(&path[..], &[Phase::Waiting, Phase::Skipped]);
        }
        prop_assert_eq!(now.after(PhaseEvent::AncestorFailed, policy) == Phase::Skipped, matches!(now, Phase::Waiting | Phase::Skipped));
    }
}

/// Shows that the properties above hold for more than trivial sequences.
#[test]
fn a_feature_passes_through_all_phases() {
    use PhaseEvent as H;
    let policy = FeaturePolicy { attempts_max: 2, review: true, hold: true };
    let attempts = [H::Started, H::TestsFailed, H::Answered, H::Refused, H::Answered];
    let events = [&attempts[..], &[H::Passed, H::Passed, H::Approved, H::Elected, H::Passed]].concat();
    let labels: Vec<_> = path(&events, policy).into_iter().map(|phase| phase.to_string()).collect();
    assert_eq!(
        labels,
        [
            "waiting", "red", "yellow", "yellow", "yellow", "yellow", "review", "held", "merging", "merging",
            "green"
        ]
    );
    let failed = path(&[H::Started, H::TestsFailed, H::Refused, H::Answered, H::Refused], policy);
    assert_eq!(failed.last(), Some(&Phase::Failed));
}
