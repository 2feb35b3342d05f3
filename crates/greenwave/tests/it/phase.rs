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
    (1..5u32, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(attempts_max, writes_tests, review, hold)| FeaturePolicy {
            attempts_max,
            writes_tests,
            review,
            hold,
        },
    )
}

/// Returns the phases of a feature from the start, without repetitions. The code has as many
/// attempts as the tests.
fn path(events: &[PhaseEvent], mut policy: FeaturePolicy) -> Vec<Phase> {
    let (mut path, per_round) = (vec![Phase::Waiting], policy.attempts_max);
    for event in events {
        let before = path[path.len() - 1];
        let after = before.after(*event, policy);
        if let (Phase::Confirming(attempt), Phase::Prompting(_)) = (before, after) {
            policy.attempts_max = attempt + per_round;
        }
        path.push(after);
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
            let rounds = if policy.writes_tests { 2 } else { 1 };
            prop_assert!(after.attempt() <= rounds * policy.attempts_max, "{:?}", path);
            let is_of_tests = matches!(after, Phase::Writing(_) | Phase::Confirming(_));
            prop_assert!(!is_of_tests || after.attempt() <= policy.attempts_max, "{:?}", path);
            let is_next = after.attempt() == before.attempt() + 1;
            let prompts = matches!(after, Phase::Prompting(_) | Phase::Writing(_));
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
        let writes = |phase: &Phase| matches!(phase, Phase::Writing(_) | Phase::Confirming(_));
        let is_new = policy.writes_tests && !path.contains(&Phase::Red);
        prop_assert_eq!(path.iter().any(writes), is_new, "{:?}", path);
        let red = match path.iter().rev().find(|phase| matches!(phase, Phase::Confirming(_))) {
            Some(confirming) => *confirming,
            None => Phase::Red,
        };
        let required = [red, Phase::Prompting(attempt), Phase::Testing(attempt), Phase::Queued(attempt)];
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
    let policy = FeaturePolicy { attempts_max: 2, writes_tests: false, review: true, hold: true };
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
    let policy = FeaturePolicy { writes_tests: true, ..policy };
    let written = [H::Started, H::Answered, H::Refused, H::Answered, H::TestsFailed];
    let events = [&written[..], &[H::Answered, H::Refused]].concat();
    assert_eq!(
        path(&events, policy)[1..],
        [
            Phase::Writing(1),
            Phase::Confirming(1),
            Phase::Writing(2),
            Phase::Confirming(2),
            Phase::Prompting(3),
            Phase::Testing(3),
            Phase::Prompting(4)
        ]
    );
    let events = [H::Started, H::Overloaded, H::Released, H::Refused, H::Refused];
    assert_eq!(
        path(&events, policy)[2..],
        [Phase::WritingPaused(1), Phase::Writing(1), Phase::Writing(2), Phase::Failed]
    );
}
