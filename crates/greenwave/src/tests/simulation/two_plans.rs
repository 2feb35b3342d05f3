//! Interrupts the merges of one plan, and runs another plan of the same project.

use std::sync::Arc;

use super::script::{Answer, FeatureScript, Interruption, Red, Script};
use super::world::World;
use super::{feature, run, script, steps};

/// Kills a run of one plan at a step, runs the other plan to its end, and then the first one.
/// Returns whether the kill has left a part of a merge.
fn check(script: &Script, step: usize) -> Result<bool, String> {
    let directory = run::directory();
    let project = directory.path().join("project");
    run::create_project(script, &project);
    let interruptions = vec![(Interruption::Kill, step)];
    let first = Arc::new(World::new(Script { interruptions, ..script.clone() }, project));
    run::run_once(&first, 0)?;
    let is_partial = partial(&first).is_some();
    run_other(&first)?;
    if let Some(feature) = partial(&first) {
        return Err(format!("the other plan leaves f{feature} half merged"));
    }
    run::check_project(&first)?;
    let report = run::run_once(&first, 1)?.ok_or("the last run was interrupted")?;
    run::check_project(&first)?;
    match report.features.iter().find(|feature| feature.phase != "green") {
        Some(feature) => Err(format!("{feature:?}")),
        None => Ok(is_partial),
    }
}

/// Returns a feature whose merge is incomplete: one file is written, and another is missing.
fn partial(world: &World) -> Option<usize> {
    let shared = World::file(&world.project, "shared.txt").unwrap_or_default();
    (0..world.script.features.len()).find(|at| {
        let has_line = shared.lines().any(|line| line.starts_with(&format!("f{at}#")));
        World::file(&world.project, &format!("f{at}.txt")).is_some() != has_line
    })
}

/// Runs a plan whose features have the ids of the first plan's, and tests that pass already.
fn run_other(first: &World) -> Result<(), String> {
    let passes = |at: &FeatureScript| FeatureScript { red: Red::Passes, depends_on: vec![], ..at.clone() };
    let features = first.script.features.iter().map(passes).collect();
    let other = Script { interruptions: vec![], features, ..first.script.clone() };
    let other = Arc::new(World::new(other, first.project.clone()));
    let mut plan = run::plan(&other);
    for test in plan.features.iter_mut().flat_map(|feature| &mut feature.tests) {
        test.command.push("other".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let report = runtime.unwrap().block_on(async {
        let engine = run::open_plan(&other, plan)?;
        other.begin(&engine, 0);
        engine.run().await
    });
    let report = report.map_err(|error| crate::chain(&error))?;
    match report.features.iter().find(|feature| feature.phase != "failed") {
        Some(feature) => Err(format!("the other plan believes a record of the first: {feature:?}")),
        None => Ok(()),
    }
}

/// A run finishes or reverts the interrupted merges of another plan, and does not believe its
/// records.
#[test]
fn another_plan_finishes_interrupted_merges() {
    let shared = || feature(&[Answer::Shared]);
    for (features, kind) in [(vec![shared()], "merge"), (vec![shared(), shared(), shared()], "batch")] {
        let script = script(features);
        let run = |step| match check(&script, step) {
            Ok(is_partial) => is_partial,
            Err(why) => panic!("killed at {step}: {why}\n{script}"),
        };
        let partial = (0..steps(&script)).filter(|&step| run(step)).count();
        assert!(partial > 0, "no {kind} was interrupted while it was written");
    }
}
