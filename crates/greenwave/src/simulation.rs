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
#[expect(clippy::print_stdout, reason = "shown only where a test fails or output is asked for")]
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

/// Interrupts a script at each of its steps, in each way.
fn at_every_step(script: Script) {
    let whole = run::run(&script).unwrap_or_else(|why| panic!("{why}\n{script}"));
    // Half of its steps are those of the run that finds all of it done, at the most.
    let kinds = Interruption::ALL;
    let interrupted = |at: usize| {
        let (kind, step) = (kinds[at % kinds.len()], at / kinds.len());
        Script { interruptions: vec![(kind, step)], ..script.clone() }
    };
    match all(&interrupted, whole.steps * kinds.len()) {
        Ok(totals) => say(&format!("{totals:?}")),
        Err((at, why)) => panic!("{why}\n{}", interrupted(at)),
    }
}

#[test]
fn one_feature_is_interrupted_at_every_step() {
    let feature = FeatureScript { review: true, ..feature(&[Answer::Unreviewed, Answer::Shared]) };
    at_every_step(script(vec![feature]));
}

#[test]
fn two_features_in_conflict_are_interrupted_at_every_step() {
    let dependant = FeatureScript { depends_on: vec![0], ..feature(&[Answer::Good]) };
    at_every_step(script(vec![feature(&[Answer::Shared]), feature(&[Answer::Shared]), dependant]));
}
