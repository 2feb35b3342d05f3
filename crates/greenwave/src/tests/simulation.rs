//! Simulates runs of the engine in virtual time and checks them against a model.
//!
//! Agents and tests are values. Runs are stopped, dropped and killed at every step.

mod model;
mod plans;
mod run;
mod script;
mod two_plans;
mod world;

use run::Coverage;
use script::{Answer, Connect, FeatureScript, Guard, Hold, Interruption, Red, Script, TestAnswer};

/// Variable with the seeds of the random test: `COUNT` or `COUNT@FIRST`. Makes the other tests
/// exhaustive.
const SEEDS: &str = "GREENWAVE_ENGINE_SEEDS";

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var(SEEDS).unwrap_or_else(|_| "60".to_owned());
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    first..first + count
}

/// Runs scripts on more threads than processors, since they wait for files. Fails with the index
/// and error of the first that breaks a rule.
fn run_all(scripts: &(dyn Fn(usize) -> Script + Sync), count: usize) -> Result<Coverage, (usize, String)> {
    let threads = std::thread::available_parallelism().map_or(2, |count| 2 * usize::from(count));
    let part = |from: usize| {
        let mut coverage = Coverage::default();
        for index in (from..count).step_by(threads) {
            coverage.add(&run::run(&scripts(index)).map_err(|why| (index, why))?);
        }
        Ok(coverage)
    };
    std::thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (0..threads).map(|from| scope.spawn(move || part(from))).collect();
        let mut sum = Coverage::default();
        let ended: Vec<_> = parts.into_iter().map(|part| part.join().unwrap()).collect();
        for part in ended {
            sum.add(&part?);
        }
        Ok(sum)
    })
}

/// Prints the coverage of a run, which `--nocapture` shows.
fn print(text: &str) {
    println!("{text}");
}

#[test]
fn random_plans_end_as_the_model_predicts() {
    let seeds = seeds();
    let count = usize::try_from(seeds.end - seeds.start).unwrap();
    match run_all(&|index| Script::random(seeds.start + index as u64), count) {
        Ok(coverage) => print(&format!("seeds {seeds:?}: {coverage:?}")),
        Err((index, why)) => {
            let seed = seeds.start + index as u64;
            let (script, shrunk_why) = run::shrink(Script::random(seed), why.clone());
            panic!("seed {seed}: {why}\n\nshrunk to: {shrunk_why}\n{script}");
        }
    }
}

fn feature(answers: &[Answer]) -> FeatureScript {
    FeatureScript {
        depends_on: vec![],
        attempts_max: 4,
        answers: answers.to_vec(),
        rivals: vec![],
        connect: Connect::Opens,
        overloads: 0,
        red: Red::Fails,
        written: vec![],
        review: false,
        hold: Hold::No,
        units: 0,
        answer_ms: 700,
        test_ms: 300,
    }
}

fn script(features: Vec<FeatureScript>) -> Script {
    Script {
        workers: 2,
        agents: 2,
        features_max: features.len() as u32,
        features,
        interruptions: vec![],
        forgetful: vec![],
        guard: Guard::None,
        patience_ms: None,
        on_branch: false,
    }
}

/// Returns whether the tests are exhaustive.
fn is_long() -> bool {
    std::env::var_os(SEEDS).is_some()
}

/// Checks all scripts. Panics with the first that breaks a rule, shrunk.
fn check(scripts: &[Script]) -> Coverage {
    match run_all(&|index| scripts[index].clone(), scripts.len()) {
        Ok(coverage) => {
            print(&format!("{coverage:?}"));
            coverage
        }
        Err((index, why)) => {
            let (script, shrunk_why) = run::shrink(scripts[index].clone(), why.clone());
            panic!("{why}\n{}\nshrunk to: {shrunk_why}\n{script}", scripts[index]);
        }
    }
}

/// Counts the steps of a script without interruptions, including those of the run that resumes it.
fn steps(script: &Script) -> usize {
    run::run(script).unwrap_or_else(|why| panic!("{why}\n{script}")).steps
}

/// Returns a script with an interruption at each step. Each kind is due at one in `every` steps, in
/// an exhaustive run at each step.
fn interrupted(script: &Script, every: usize) -> Vec<Script> {
    let at = |kind, step| Script { interruptions: vec![(kind, step)], ..script.clone() };
    let kinds = Interruption::ALL;
    let every = if is_long() { 1 } else { every };
    let places = (0..steps(script)).flat_map(|step| (0..kinds.len()).map(move |kind| (kind, step)));
    let due = places.filter(|(kind, step)| (step + kind) % every == 0);
    due.map(|(kind, step)| at(kinds[kind], step)).collect()
}

#[test]
fn one_feature_is_interrupted_at_every_step() {
    let feature = FeatureScript { review: true, ..feature(&[Answer::Unreviewed, Answer::Shared]) };
    check(&interrupted(&script(vec![feature]), 1));
}

#[test]
fn three_features_are_interrupted_at_every_step() {
    let dependant = FeatureScript { depends_on: vec![0], ..feature(&[Answer::Good]) };
    let script = script(vec![feature(&[Answer::Shared]), feature(&[Answer::Shared]), dependant]);
    check(&interrupted(&script, Interruption::ALL.len()));
}

/// The tests of a merge run beside each other, unless they need the same resource.
#[test]
fn tests_of_a_batch_use_all_workers() {
    let batch = |units| {
        // Their tests run again on the merge.
        let feature = FeatureScript { units, ..feature(&[Answer::Flaky]) };
        Script { workers: 3, agents: 6, ..script(vec![feature; 6]) }
    };
    let coverage = check(&[batch(0)]);
    assert!(coverage.merge_tests_beside > 0, "{coverage:?}");
    let coverage = check(&[batch(1)]);
    assert_eq!(coverage.merge_tests_beside, 0, "{coverage:?}");
    let alone = Script { workers: 1, ..batch(0) };
    assert_eq!(check(&[alone]).merge_tests_beside, 0);
}

/// The feature that breaks the guard is found by runs of the guard on parts of the batch, several
/// of them at once. Kills and other interruptions at each step of it change nothing.
#[test]
fn parts_of_a_batch_that_fails_are_tested_side_by_side() {
    let mut features = vec![feature(&[Answer::Good]); 7];
    features[4] = feature(&[Answer::Unguarded, Answer::Good]);
    features.push(feature(&[Answer::Shared]));
    let plan = Script { workers: 3, agents: 8, guard: Guard::Passes, ..script(features) };
    let coverage = check(std::slice::from_ref(&plan));
    assert!(coverage.guards_beside > 0, "{coverage:?}");
    let alone = Script { workers: 1, ..plan.clone() };
    assert_eq!(check(&[alone]).guards_beside, 0);
    check(&interrupted(&plan, 3 * Interruption::ALL.len()));
}

/// A batch that several workers test ends as if one of them had tested it, with all answers and
/// interruptions.
#[test]
fn batches_on_several_workers_end_as_the_model_predicts() {
    let bad = [Answer::BadJoined, Answer::Flaky, Answer::Unguarded, Answer::Breaks(0)];
    let mut coverage = Coverage::default();
    for first in bad {
        for second in bad {
            let of = |answer| feature(&[answer, Answer::Good]);
            let features =
                vec![of(Answer::Good), of(Answer::Shared), of(first), of(Answer::Good), of(second)];
            let plan = Script { workers: 4, agents: 5, guard: Guard::Passes, ..script(features) };
            coverage.add(&check(std::slice::from_ref(&plan)));
            if first == second {
                coverage.add(&check(&interrupted(&plan, 4 * Interruption::ALL.len())));
            }
        }
    }
    assert!(coverage.merge_tests_beside > 0, "{coverage:?}");
}

/// Merges a batch, one of whose features breaks the test of another, and interrupts the run. In the
/// second script, features that wait for their merge make room for others.
#[test]
fn a_batch_is_interrupted_at_every_step() {
    let breaks = FeatureScript { answer_ms: 900, ..feature(&[Answer::Breaks(0), Answer::Good]) };
    let scripts = [
        vec![feature(&[Answer::Good]), feature(&[Answer::Shared]), feature(&[Answer::Shared])],
        vec![feature(&[Answer::Good]), feature(&[Answer::Good]), breaks, feature(&[Answer::Shared])],
    ];
    let mut coverage = Coverage::default();
    for (features_max, features, is_last) in [(3, &scripts[0], false), (2, &scripts[1], true)] {
        let script = Script { features_max, ..script(features.clone()) };
        let at = |kind, step| Script { interruptions: vec![(kind, step)], ..script.clone() };
        let kinds = Interruption::ALL;
        let every = if is_long() { 1 } else { kinds.len() - 1 };
        // Threads may make their steps in another order, so that one part of the interruptions can
        // miss the moment at which a batch is written.
        for part in 0..every {
            let scripts = (0..steps(&script)).flat_map(|step| {
                let due = (0..kinds.len()).filter(move |kind| (step + kind + part) % every == 0);
                due.map(move |kind| at(kinds[kind], step))
            });
            coverage.add(&check(&scripts.collect::<Vec<_>>()));
            if !is_last || coverage.batches_finished > 0 {
                break;
            }
        }
    }
    assert!(coverage.batches_finished > 0, "no batch was interrupted while it was written");
}

/// Kills a run while it writes a batch of merges, before it reports them, and interrupts the run
/// that resumes it. An exhaustive run interrupts each step of both runs.
#[test]
fn a_resumed_batch_is_interrupted_again() {
    let breaks = FeatureScript { answer_ms: 900, ..feature(&[Answer::Breaks(0), Answer::Good]) };
    let features =
        vec![feature(&[Answer::Good]), feature(&[Answer::Good]), breaks, feature(&[Answer::Shared])];
    let script = Script { features_max: 2, ..script(features) };
    let killed_at = |step| Script { interruptions: vec![(Interruption::Kill, step)], ..script.clone() };
    let is_in_batch = |step: &usize| {
        let coverage = run::run(&killed_at(*step)).unwrap_or_else(|why| panic!("killed at {step}: {why}"));
        coverage.batches_finished > 0
    };
    // Threads may make their steps in another order the next time, so a step may miss the batch.
    let in_batch: Vec<usize> = (0..steps(&script)).filter(is_in_batch).collect();
    assert!(!in_batch.is_empty(), "no run was killed while it wrote a batch");
    let pairs = in_batch.into_iter().flat_map(|first| (0..30).map(move |second| (first, second)));
    let scripts = pairs.flat_map(|(first, second)| {
        let kinds = Interruption::ALL.into_iter().map(move |kind| (kind, second));
        kinds.map(move |second| vec![(Interruption::Kill, first), second])
    });
    let every = if is_long() { 1 } else { 41 };
    let scripts = scripts.map(|interruptions| Script { interruptions, ..script.clone() }).step_by(every);
    check(&scripts.collect::<Vec<_>>());
}

/// Kills a run during its merge, and interrupts the next run, which finishes the merge.
#[test]
fn a_resumed_run_is_interrupted_again() {
    let script = script(vec![feature(&[Answer::Shared])]);
    let steps = steps(&script);
    let at = |first, kind, second| {
        let interruptions = vec![(Interruption::Kill, first), (kind, second)];
        Script { interruptions, ..script.clone() }
    };
    // The last steps of the first run are those of its merge.
    let (from, second_max) = if is_long() { (0, steps) } else { (steps.saturating_sub(18), 4) };
    let kinds = if is_long() {
        &Interruption::ALL[..]
    } else {
        &[Interruption::Kill, Interruption::Fault, Interruption::Edit]
    };
    let pairs = (from..steps).flat_map(|first| (0..second_max).map(move |second| (first, second)));
    let scripts = pairs.flat_map(|(first, second)| kinds.iter().map(move |&kind| at(first, kind, second)));
    check(&scripts.collect::<Vec<_>>());
}

/// Covers all plans of one feature with one answer, and of two features with and without a
/// dependency. An exhaustive run covers every pair of answers.
#[test]
fn all_small_plans_end_as_the_model_predicts() {
    let usual = |answer: Answer| answer == Answer::Good || answer == Answer::Shared;
    let mut scripts = Vec::new();
    for first in Answer::ALL {
        let first = if first == Answer::Breaks(0) { Answer::Breaks(1) } else { first };
        let first_of = |last| FeatureScript { attempts_max: 3, ..feature(&[first, last]) };
        if !matches!(first, Answer::Breaks(_)) {
            let once = FeatureScript { attempts_max: 2, review: true, ..feature(&[first]) };
            scripts.push(script(vec![once]));
        }
        for second in Answer::ALL.into_iter().filter(|&second| is_long() || usual(second)) {
            for depends_on in [vec![], vec![0]] {
                let second = FeatureScript { depends_on, ..feature(&[second]) };
                scripts.push(script(vec![first_of(Answer::Shared), second]));
            }
        }
    }
    check(&scripts);
}

/// A panic or a hang ends its feature or costs it an attempt. It leaves no workspace behind and
/// does not block other features.
#[test]
fn panics_and_hangs_affect_only_their_feature() {
    let bad = [
        Answer::CallPanics,
        Answer::StreamPanics,
        Answer::TestPanics,
        Answer::CallHangs,
        Answer::StreamHangs,
        Answer::TestHangs,
    ];
    let dependant = || FeatureScript { depends_on: vec![0], ..feature(&[Answer::Good]) };
    let of = |bad| script(vec![feature(&[bad]), dependant(), feature(&[Answer::Good])]);
    check(&bad.map(of));
    let red = |red| script(vec![FeatureScript { red, ..feature(&[Answer::Good]) }, dependant()]);
    check(&[Red::Panics, Red::Hangs, Red::Passes, Red::RunsNothing, Red::Broken].map(red));
}

#[test]
fn the_next_prompt_names_incomplete_files_of_an_answer() {
    let of = |answer| script(vec![feature(&[answer, Answer::Good])]);
    check(&[Answer::Edit, Answer::Diff, Answer::Nested].map(of));
}

/// A feature whose work overlaps with an edit waits until the user undoes the edit, and is then
/// merged. If the user does not, it fails, and the next run merges it.
#[test]
fn an_edit_that_overlaps_blocks_its_feature() {
    for (kind, answer) in [
        (Interruption::Overlap, Answer::Shared),
        (Interruption::Create, Answer::Good),
        (Interruption::Change, Answer::Deletes),
    ] {
        for patience_ms in [Some(2_000), None] {
            let script = Script { patience_ms, ..script(vec![feature(&[answer])]) };
            let at = |step| Script { interruptions: vec![(kind, step)], ..script.clone() };
            let coverage = check(&(0..steps(&script)).map(at).collect::<Vec<_>>());
            assert!(coverage.blocked > 5, "{kind:?}: {coverage:?}");
            assert_eq!(coverage.green, coverage.scripts, "{kind:?}: {coverage:?}");
        }
    }
}

/// A held feature is merged once the user approves it, has another attempt if the user rejects it,
/// and otherwise waits with the features that depend on it. Runs are interrupted meanwhile.
#[test]
fn held_features_wait_for_decisions() {
    let held = |hold, answers: &[Answer]| FeatureScript { hold, review: true, ..feature(answers) };
    let dependant = || FeatureScript { depends_on: vec![0], ..feature(&[Answer::Good]) };
    for hold in [Hold::Approved, Hold::Rejected, Hold::Undecided] {
        let shared = held(hold, &[Answer::Bad, Answer::Shared]);
        let features = vec![shared.clone(), dependant(), feature(&[Answer::Shared])];
        let crowded = Script { features_max: 1, ..script(features.clone()) };
        let coverage = check(&[script(features.clone()), crowded]);
        assert!(coverage.held > 0, "{hold:?}: {coverage:?}");
        let ends = (coverage.green, coverage.failed, coverage.undecided);
        assert_eq!(ends, if hold == Hold::Undecided { (2, 0, 4) } else { (6, 0, 0) }, "{hold:?}");
        check(&interrupted(&script(vec![shared, dependant()]), Interruption::ALL.len()));
        let merged = [Answer::Unguarded, Answer::BadJoined, Answer::Deletes, Answer::Flaky];
        let of =
            |answer| Script { guard: Guard::Passes, ..script(vec![held(hold, &[answer, Answer::Good])]) };
        check(&merged.map(of));
    }
    // A rejection begins a new round.
    let last = FeatureScript { attempts_max: 1, ..held(Hold::Rejected, &[Answer::Good]) };
    let coverage = check(&[script(vec![last])]);
    assert_eq!((coverage.green, coverage.held), (1, 2));
}

/// An aborted stage leaves its write to another thread, and the run waits for it.
#[test]
fn a_stopped_run_waits_for_its_writes() {
    run::stop_during_a_write(&script(vec![feature(&[Answer::Good])])).unwrap();
}

/// The best of several answers is merged, and a run that is interrupted between them asks for none
/// of them twice.
#[test]
fn the_best_of_several_answers_is_merged() {
    use Answer as A;
    let first = [A::Good, A::Bad, A::Garbage, A::Protected, A::Unguarded, A::Shared, A::TestBroken];
    let rivals = [&[A::Good][..], &[A::Unguarded, A::Bad], &[A::RefusesForGood, A::Good], &[A::Refuses]];
    let mut scripts = Vec::new();
    for first in first {
        for rivals in rivals {
            let feature = FeatureScript { rivals: rivals.to_vec(), ..feature(&[first, Answer::Good]) };
            scripts.push(Script { guard: Guard::Passes, ..script(vec![feature]) });
        }
    }
    let coverage = check(&scripts);
    assert!(coverage.green > scripts.len() / 2, "{coverage:?}");
    let overloaded =
        FeatureScript { overloads: 3, rivals: vec![A::Bad, A::Good], ..feature(&[A::Unguarded]) };
    check(&[script(vec![overloaded.clone(), feature(&[A::Good])])]);
    let every = if is_long() { 1 } else { 3 };
    let bad = FeatureScript { review: true, rivals: vec![A::Bad, A::Good], ..feature(&[A::Bad, A::Shared]) };
    let plan = Script { guard: Guard::Passes, agents: 3, ..script(vec![bad]) };
    check(&interrupted(&plan, every));
    let held = FeatureScript { hold: Hold::Rejected, rivals: vec![A::Garbage], ..feature(&[A::Good]) };
    check(&interrupted(&script(vec![held]), 2 * every));
    check(&interrupted(&script(vec![overloaded]), 2 * every));
}

/// An agent writes the tests of a feature before another one writes the code. Tests that prove
/// nothing cost an attempt, and tests that were accepted are never asked for again.
#[test]
fn tests_are_written_before_the_code() {
    use {Answer as A, TestAnswer as T};
    let of = |first, answers: &[Answer]| FeatureScript {
        written: vec![first, T::Good],
        review: true,
        attempts_max: 3,
        ..feature(answers)
    };
    let codes: [&[Answer]; 4] =
        [&[A::Good], &[A::Bad, A::Shared], &[A::Protected, A::Good], &[A::Unreviewed, A::Good]];
    let plans = T::ALL.into_iter().flat_map(|first| codes.map(|answers| script(vec![of(first, answers)])));
    let plans: Vec<Script> = plans.collect();
    let coverage = check(&plans);
    assert_eq!(coverage.green, plans.len());
    let never = FeatureScript { written: vec![T::Passing], ..feature(&[A::Good]) };
    let late =
        FeatureScript { written: vec![T::Empty, T::Broken, T::Good], attempts_max: 2, ..feature(&[A::Good]) };
    // The second run begins a new round.
    let coverage = check(&[script(vec![never]), script(vec![late])]);
    assert_eq!((coverage.failed, coverage.green), (1, 1));
    let every = if is_long() { 1 } else { 2 };
    for first in [T::Good, T::WithCode, T::Lost] {
        check(&interrupted(&script(vec![of(first, &[A::Bad, A::Shared])]), every));
    }
    let overloaded = FeatureScript { overloads: 2, ..of(T::Passing, &[A::Good]) };
    check(&interrupted(&script(vec![overloaded]), 2 * every));
    let rivals = FeatureScript { rivals: vec![A::Good, A::Protected], ..of(T::Good, &[A::Bad, A::Good]) };
    check(&interrupted(&Script { agents: 3, ..script(vec![rivals]) }, 2 * every));
    let held = FeatureScript { hold: Hold::Rejected, ..of(T::Garbage, &[A::Good]) };
    check(&interrupted(&script(vec![held]), 2 * every));
    let features = vec![of(T::Good, &[A::Shared]), of(T::Lost, &[A::Shared]), feature(&[A::Shared])];
    let crowded = Script { features_max: 1, guard: Guard::Passes, ..script(features.clone()) };
    let on_branch = Script { on_branch: true, ..script(features.clone()) };
    let coverage = check(&[script(features), crowded, on_branch]);
    assert_eq!(coverage.green, 9);
}

/// An overloaded agent delays its feature, at the cost of no attempt.
#[test]
fn overloads_cost_no_attempt() {
    let of = |overloads| FeatureScript { overloads, attempts_max: 1, ..feature(&[Answer::Good]) };
    check(&[script(vec![of(1)]), script(vec![of(3), of(0), of(2)])]);
    check(&interrupted(&script(vec![of(2)]), 1));
}

/// A session that cannot be opened costs an attempt, like a refused request.
#[test]
fn a_failed_connection_costs_an_attempt() {
    for connect in [Connect::FailsOnce, Connect::Fails, Connect::Panics, Connect::Hangs] {
        check(&[script(vec![FeatureScript { connect, ..feature(&[Answer::Good]) }])]);
    }
}
