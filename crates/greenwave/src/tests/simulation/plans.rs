//! Enumerates small plans, each with every interruption at every step.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::run::Coverage;
use super::script::{Answer, Connect, FeatureScript, Guard, Interruption, REWRITES, Red, Script, TestAnswer};
use super::{check, feature, print, script, steps};

/// Variable with the number of scripts, which are spread evenly over all. A number beyond that of
/// all scripts runs them all.
const PLANS: &str = "GREENWAVE_ENGINE_PLANS";
/// Number of scripts without the variable.
const PLANS_USUALLY: usize = 150;
/// Estimated number of steps of a plan.
const STEPS: usize = 50;

/// Answers that matter for the merges of several features.
const MERGED: [Answer; 10] = [
    Answer::Good,
    Answer::Shared,
    Answer::Breaks(0),
    Answer::BadJoined,
    Answer::Protected,
    Answer::Unguarded,
    Answer::Deletes,
    Answer::Flaky,
    Answer::Refuses,
    Answer::TestPanics,
];

/// Interruptions, and the time until the user undoes those that are edits.
fn interruptions() -> Vec<(Interruption, Option<u64>)> {
    use Interruption as I;
    let mut all = vec![
        (I::Kill, None),
        (I::Stop, None),
        (I::Drop, None),
        (I::Fault, None),
        (I::Edit, None),
        (I::Remove, None),
        (I::Unguard, None),
    ];
    let edits = [I::Overlap, I::Create, I::Change].into_iter().chain((0..REWRITES).map(I::Rewrite));
    all.extend(edits.flat_map(|edit| [None, Some(2_000)].map(|patience| (edit, patience))));
    all
}

fn guarded(features: Vec<FeatureScript>) -> Script {
    Script { guard: Guard::Passes, ..script(features) }
}

/// Returns all plans of one feature.
fn single_plans() -> Vec<Script> {
    let reviewed = |first| FeatureScript { review: true, attempts_max: 3, ..feature(&[first, Answer::Good]) };
    let is_alone = |answer: &Answer| !matches!(answer, Answer::Breaks(_));
    let mut plans: Vec<Script> =
        Answer::ALL.into_iter().filter(is_alone).map(|first| guarded(vec![reviewed(first)])).collect();
    for red in [Red::Passes, Red::RunsNothing, Red::Panics, Red::Hangs, Red::Broken] {
        plans.push(script(vec![FeatureScript { red, ..feature(&[Answer::Good]) }]));
    }
    for connect in [Connect::FailsOnce, Connect::Fails, Connect::Panics, Connect::Hangs] {
        plans.push(script(vec![FeatureScript { connect, ..feature(&[Answer::Good]) }]));
    }
    for overloads in 1..=3 {
        plans.push(script(vec![FeatureScript { overloads, ..feature(&[Answer::Shared]) }]));
    }
    for first in TestAnswer::ALL {
        let written = vec![first, TestAnswer::Good];
        plans.push(guarded(vec![FeatureScript { written, ..reviewed(Answer::Bad) }]));
    }
    plans.push(Script {
        guard: Guard::FailsAtStart,
        ..script(vec![feature(&[Answer::Unguarded, Answer::Good])])
    });
    plans
}

/// Returns the plans of two features, with and without a dependency.
fn double_plans() -> Vec<Script> {
    let mut plans = Vec::new();
    for first in MERGED {
        let first = if first == Answer::Breaks(0) { Answer::Breaks(1) } else { first };
        for second in MERGED {
            for depends_on in [vec![], vec![0]] {
                let of = |answer| FeatureScript { attempts_max: 3, ..feature(&[answer, Answer::Good]) };
                plans.push(guarded(vec![of(first), FeatureScript { depends_on, ..of(second) }]));
            }
        }
    }
    plans
}

/// Returns plans of three features in all shapes, with answers that change the same file, remove
/// one, or are refused at first.
fn triple_plans() -> Vec<Script> {
    let shapes: [[&[usize]; 3]; 6] = [
        [&[], &[], &[]],
        [&[], &[0], &[]],
        [&[], &[0], &[0]],
        [&[], &[], &[0, 1]],
        [&[], &[0], &[1]],
        [&[], &[0], &[0, 1]],
    ];
    let answers = [Answer::Shared, Answer::Deletes, Answer::Unguarded];
    let mut plans = Vec::new();
    for shape in shapes {
        for number in 0..answers.len().pow(3) {
            let of = |at: usize| {
                let answer = answers[number / answers.len().pow(at as u32) % answers.len()];
                FeatureScript { depends_on: shape[at].to_vec(), ..feature(&[answer, answer, Answer::Good]) }
            };
            plans.push(guarded((0..3).map(of).collect()));
        }
    }
    plans
}

/// Returns plans whose results are commits on a branch.
fn branch_plans() -> Vec<Script> {
    let answers = [Answer::Good, Answer::Shared, Answer::Deletes, Answer::Protected, Answer::Unguarded];
    let on_branch = |features| Script { on_branch: true, ..guarded(features) };
    let mut plans: Vec<Script> =
        answers.iter().map(|&answer| on_branch(vec![feature(&[answer, Answer::Good])])).collect();
    for depends_on in [vec![], vec![0]] {
        let second = FeatureScript { depends_on, ..feature(&[Answer::Shared]) };
        plans.push(on_branch(vec![feature(&[Answer::Shared]), second]));
    }
    plans
}

/// Checks plans as they are, and with interruptions at every step, or at steps that are spread
/// evenly over all plans.
fn check_all(name: &str, plans: &[Script], interruptions: &[(Interruption, Option<u64>)], share: usize) {
    check_plans(name, plans, interruptions, share, false);
}

/// Checks plans like [`check_all`]. If `again`, the run that resumes an interrupted one is also
/// interrupted, in a way and at a step that differ from one script to the next.
fn check_plans(
    name: &str,
    plans: &[Script],
    interruptions: &[(Interruption, Option<u64>)],
    share: usize,
    again: bool,
) {
    let limit = std::env::var(PLANS).ok().map_or(PLANS_USUALLY / share, |limit| limit.parse().unwrap());
    let stride = (plans.len() * interruptions.len() * STEPS).div_ceil(limit.max(1)).max(1);
    let next = AtomicUsize::new(0);
    let is_chosen = || next.fetch_add(1, Ordering::Relaxed).is_multiple_of(stride);
    let mut all = Coverage::default();
    // Odd numbers, so that all pairs of kinds occur, and steps spread over those of a plan.
    let second = |number: usize| {
        again.then(|| (interruptions[number * 7 % interruptions.len()].0, number * 11 % STEPS))
    };
    for plan in plans {
        // Counting its steps runs the plan, so plans without a chosen step are not run.
        let estimate = interruptions.len() * STEPS;
        if stride > estimate && next.load(Ordering::Relaxed) % stride + estimate <= stride {
            next.fetch_add(estimate, Ordering::Relaxed);
            continue;
        }
        let mut scripts = Vec::new();
        for step in 0..steps(plan) {
            for &(kind, patience_ms) in interruptions {
                if is_chosen() {
                    let interruptions =
                        [(kind, step)].into_iter().chain(second(step + scripts.len())).collect();
                    scripts.push(Script { interruptions, patience_ms, ..plan.clone() });
                }
            }
        }
        all.add(&check(&scripts));
    }
    print(&format!("{name}: {} plans, {all:?}", plans.len()));
    assert!(all.scripts > 0, "no run was interrupted");
}

#[test]
fn plans_of_one_feature_survive_every_interruption_at_every_step() {
    check_all("one feature", &single_plans(), &interruptions(), 1);
}

#[test]
fn plans_of_two_features_survive_every_interruption_at_every_step() {
    check_all("two features", &double_plans(), &interruptions(), 2);
}

#[test]
fn plans_of_three_features_survive_every_interruption_at_every_step() {
    check_all("three features", &triple_plans(), &interruptions(), 4);
}

#[test]
fn plans_survive_a_second_interruption_of_the_run_that_resumes_them() {
    let plans = [single_plans(), double_plans(), triple_plans()].concat();
    check_plans("two interruptions", &plans, &interruptions(), 2, true);
}

#[test]
fn results_on_a_branch_survive_every_interruption_at_every_step() {
    // The user's files are not those of the results, so edits do not matter.
    check_all("results on a branch", &branch_plans(), &interruptions()[..3], 10);
}
