//! The engine against a model, in virtual time: agents and tests that are values, runs that are
//! stopped, dropped and killed at every step.

mod model;
mod run;
mod script;
mod world;

use run::Totals;
use script::{Answer, Connect, FeatureScript, Interruption, Red, Script};

/// How many seeds the random test runs, and from which on: `COUNT` or `COUNT@FIRST`.
const SEEDS: &str = "GREENWAVE_ENGINE_SEEDS";

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var(SEEDS).unwrap_or_else(|_| "60".to_owned());
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    first..first + count
}

/// Runs scripts on all processors; the first that fails, with its place in the row.
fn all(scripts: &(dyn Fn(usize) -> Script + Sync), count: usize) -> Result<Totals, (usize, String)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = |from: usize| {
        let mut totals = Totals::default();
        for at in (from..count).step_by(threads) {
            totals.add(&run::run(&scripts(at)).map_err(|why| (at, why))?);
        }
        Ok(totals)
    };
    std::thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (0..threads).map(|from| scope.spawn(move || part(from))).collect();
        let mut sum = Totals::default();
        let ended: Vec<_> = parts.into_iter().map(|part| part.join().unwrap()).collect();
        for part in ended {
            sum.add(&part?);
        }
        Ok(sum)
    })
}

/// For the record of a long run, and for whoever looks into a failure.
fn say(what: &str) {
    println!("{what}");
}

#[test]
fn random_plans_end_as_the_model_says() {
    let seeds = seeds();
    let count = usize::try_from(seeds.end - seeds.start).unwrap();
    match all(&|at| Script::random(seeds.start + at as u64), count) {
        Ok(totals) => say(&format!("seeds {seeds:?}: {totals:?}")),
        Err((at, why)) => {
            let seed = seeds.start + at as u64;
            let (script, then) = run::shrink(Script::random(seed), why.clone());
            panic!("seed {seed}: {why}\n\nshrunk to: {then}\n{script}");
        }
    }
}

fn feature(answers: &[Answer]) -> FeatureScript {
    FeatureScript {
        depends_on: vec![],
        attempts_max: 4,
        answers: answers.to_vec(),
        connect: Connect::Well,
        red: Red::Fails,
        review: false,
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
    }
}

/// Whether a long run was asked for.
fn is_long() -> bool {
    std::env::var_os(SEEDS).is_some()
}

/// Runs all of these scripts, and prints the first that fails.
fn each(scripts: &[Script]) {
    match all(&|at| scripts[at].clone(), scripts.len()) {
        Ok(totals) => say(&format!("{totals:?}")),
        Err((at, why)) => {
            let (script, then) = run::shrink(scripts[at].clone(), why.clone());
            panic!("{why}\n{}\nshrunk to: {then}\n{script}", scripts[at]);
        }
    }
}

/// Steps of a script that nothing interrupts, those of the run that finds all of it done included.
fn steps(script: &Script) -> usize {
    run::run(script).unwrap_or_else(|why| panic!("{why}\n{script}")).steps
}

#[test]
fn one_feature_is_interrupted_at_every_step() {
    let feature = FeatureScript { review: true, ..feature(&[Answer::Unreviewed, Answer::Shared]) };
    let script = script(vec![feature]);
    let at = |kind, step| Script { interruptions: vec![(kind, step)], ..script.clone() };
    let steps = 0..steps(&script);
    let scripts = steps.flat_map(|step| Interruption::ALL.map(|kind| at(kind, step)));
    each(&scripts.collect::<Vec<_>>());
}

/// Each way to interrupt a run at every fifth step; in a long run at every step.
#[test]
fn three_features_are_interrupted_at_every_step() {
    let dependant = FeatureScript { depends_on: vec![0], ..feature(&[Answer::Good]) };
    let script = script(vec![feature(&[Answer::Shared]), feature(&[Answer::Shared]), dependant]);
    let at = |kind, step| Script { interruptions: vec![(kind, step)], ..script.clone() };
    let kinds = Interruption::ALL;
    let every = if is_long() { 1 } else { kinds.len() };
    let scripts = (0..steps(&script)).flat_map(|step| {
        let due = (0..kinds.len()).filter(move |kind| (step + kind) % every == 0);
        due.map(move |kind| at(kinds[kind], step))
    });
    each(&scripts.collect::<Vec<_>>());
}

/// A run is killed, and the next one, which has to finish what was half done, is interrupted as well.
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
    each(&scripts.collect::<Vec<_>>());
}

/// All plans of one feature with one answer, and of two, of which the second depends on the first or
/// does not, with every pair of answers in a long run.
#[test]
fn all_small_plans_end_as_the_model_says() {
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
    each(&scripts);
}

/// What agents and test runners do badly ends their feature at once or costs it an attempt, and leaves
/// neither copies behind nor others waiting.
#[test]
fn panics_and_hangs_stay_with_their_feature() {
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
    each(&bad.map(of));
    let red = |red| script(vec![FeatureScript { red, ..feature(&[Answer::Good]) }, dependant()]);
    each(&[Red::Panics, Red::Hangs, Red::Passes, Red::RunsNothing, Red::Broken].map(red));
}

/// The next prompt names the file that an answer gave in part, and says how to give it.
#[test]
fn answers_with_parts_of_files_are_named_in_the_next_prompt() {
    let of = |answer| script(vec![feature(&[answer, Answer::Good])]);
    each(&[Answer::Edit, Answer::Diff, Answer::Nested].map(of));
}

/// A write goes on in a thread of its own when its stage is aborted: the run waits for it.
#[test]
fn a_stopped_run_returns_after_its_writes() {
    run::stop_during_a_write(&script(vec![feature(&[Answer::Good])])).unwrap();
}

/// A session that cannot be opened costs an attempt, as a question does that is refused.
#[test]
fn a_connection_that_fails_costs_an_attempt() {
    for connect in [Connect::FailsOnce, Connect::Fails, Connect::Panics, Connect::Hangs] {
        each(&[script(vec![FeatureScript { connect, ..feature(&[Answer::Good]) }])]);
    }
}
