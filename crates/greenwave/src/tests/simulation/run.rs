//! Runs a script, in virtual time, and checks it against the model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use greenwave_testing::Test;

use super::model::{self, End};
use super::script::{Interruption, Script};
use super::world::{ANSWER_MAX, Author, Results, TEST_MAX, UNITS, World, is_done};
use crate::engine::Engine;
use crate::steps::Steps;
use crate::{AgentSpec, Event, Feature, Plan, Report, Settings, adapters};

/// What scripts have gone through, so that a run of the simulation shows what it has covered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) scripts: usize,
    pub(super) runs: usize,
    pub(super) steps: usize,
    pub(super) interrupted: usize,
    pub(super) green: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Totals) {
        self.scripts += other.scripts;
        self.runs += other.runs;
        self.steps += other.steps;
        self.interrupted += other.interrupted;
        self.green += other.green;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs a script to its end.
///
/// # Errors
/// What broke a rule.
pub(super) fn run(script: &Script) -> Result<Totals, String> {
    let directory = directory();
    let project = directory.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("shared.txt"), "top\nbottom\n").unwrap();
    let world = Arc::new(World::new(script.clone(), project));
    let mut totals = Totals { scripts: 1, ..Totals::default() };
    let mut last = None;
    // After the runs that are interrupted one that goes to its end, and one that finds all of it done.
    for number in 0..script.interruptions.len() + 2 {
        let ended = one(&world, number)?;
        totals.runs += 1;
        totals.steps += world.seen.lock().steps;
        totals.interrupted += usize::from(ended.is_none());
        check_rest(&world)?;
        if number > script.interruptions.len() {
            let report: &Report = last.as_ref().ok_or("the last run was interrupted")?;
            let now = ended.as_ref().ok_or("a run was interrupted by nobody")?;
            check_again(script, report, now)?;
        }
        last = ended;
    }
    for feature in last.iter().flat_map(|report| &report.features) {
        match feature.phase {
            "green" => totals.green += 1,
            "failed" => totals.failed += 1,
            _ => totals.skipped += 1,
        }
    }
    Ok(totals)
}

/// In memory where the system has a place for that, since many small files are made durable.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory).ok() } else { None };
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn plan(world: &World) -> Plan {
    let agent = |_| AgentSpec::Command { command: vec!["simulated".to_owned()], time_max: None };
    let features = world.script.features.iter().enumerate().map(|(at, feature)| Feature {
        id: format!("f{at}"),
        title: format!("f{at}"),
        depends_on: feature.depends_on.iter().map(|other| format!("f{other}")).collect(),
        prompt: "Write it.".to_owned(),
        agent: format!("a{at}"),
        tests: vec![test(&format!("test{at}"))],
        attempts_max: feature.attempts_max,
        resources: [("unit".to_owned(), feature.units)].into(),
        review: feature.review.then(|| test(&format!("review{at}"))),
    });
    Plan {
        name: "simulated".to_owned(),
        project: world.project.clone(),
        agents: (0..world.script.features.len()).map(|at| (format!("a{at}"), agent(at))).collect(),
        resources: [("unit".to_owned(), UNITS)].into(),
        features: features.collect(),
    }
}

fn test(name: &str) -> Test {
    Test { time_max: TEST_MAX, ..Test::new(name, ["simulated"]) }
}

fn settings(script: &Script) -> Settings {
    let mut settings = Settings::default();
    settings.parallel.workers = script.workers;
    settings.parallel.agents = script.agents;
    settings.parallel.features = script.features_max;
    settings.pool.size = 2;
    settings.pool.min = 0;
    settings.agent.time_limit = ANSWER_MAX;
    settings
}

fn open(world: &Arc<World>) -> Result<Engine, crate::Error> {
    let (plan, settings) = (plan(world), settings(&world.script));
    let author = |feature| Author { world: Arc::clone(world), feature };
    let pool = |at: usize| {
        let name = format!("a{at}");
        (name.clone(), adapters::sessions(&name, Arc::new(author(at)), &settings))
    };
    let agents: BTreeMap<_, _> = (0..plan.features.len()).map(pool).collect();
    let steps = Steps::observed_by(Arc::clone(world) as _);
    Engine::assemble(plan, settings, agents, steps, |_, _| Ok(Arc::new(Results(Arc::clone(world)))))
}

/// What a run takes at the most, all its work done one after another.
fn time_max(script: &Script) -> Duration {
    let count = script.features.len() as u32;
    let attempts: u32 = script.features.iter().map(|feature| feature.attempts_max + 1).sum();
    attempts * (ANSWER_MAX + (count + 4) * TEST_MAX) + Duration::from_secs(60)
}

/// One run; `None` if it was interrupted before its end.
fn one(world: &Arc<World>, number: usize) -> Result<Option<Report>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap();
    let result = runtime.block_on(async {
        let engine = open(world).map_err(|error| crate::chain(&error))?;
        world.begin(&engine, number);
        let mut ends = BTreeMap::new();
        let mut events = engine.events();
        let run = tokio::time::timeout(time_max(&world.script), engine.run());
        let mut run = pin!(run);
        let report = loop {
            tokio::select! {
                biased;
                // First, so that what is noted of an event is noted before anything follows from it.
                Some(event) = events.next() => see(world, &mut ends, &event),
                () = world.killed.notified() => return Ok(None),
                report = &mut run => break report,
            }
        };
        while let Some(event) = events.try_next() {
            see(world, &mut ends, &event);
        }
        let report = report.map_err(|_| format!("run {number} does not end"))?;
        let report = report.map_err(|error| format!("run {number}: {}", crate::chain(&error)))?;
        let interruption = {
            let seen = world.seen.lock();
            seen.interruption.filter(|_| seen.interrupted).map(|(kind, _)| kind)
        };
        check_report(world, &report, &ends, interruption)?;
        Ok(interruption.is_none().then_some(report))
    });
    // Waits for what blocks, as a process does that ends.
    drop(runtime);
    let wrong = std::mem::take(&mut world.seen.lock().wrong);
    match wrong.is_empty() {
        true => result.map_err(|error: String| format!("run {number}: {error}")),
        false => Err(format!("run {number}: {}", wrong.join("; "))),
    }
}

/// Stops a run while it writes a merge into the project, and holds that write up.
///
/// # Errors
/// If the run goes on to its end before the write has ended.
pub(super) fn stop_during_a_write(script: &Script) -> Result<(), String> {
    let directory = directory();
    let project = directory.path().join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("shared.txt"), "top\nbottom\n").unwrap();
    let world = Arc::new(World::new(script.clone(), project));
    let (release, gate) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        // Gone before the runtime, which waits for the write.
        let release = release;
        let engine = open(&world).map_err(|error| crate::chain(&error))?;
        world.begin(&engine, 0);
        *world.gate.lock() = Some(gate);
        let mut run = pin!(engine.run());
        // From the stop on as many turns as an aborted stage could need.
        let turns = async {
            world.killed.notified().await;
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            report = &mut run => {
                let report = report.map_err(|error| crate::chain(&error))?;
                return Err(format!("the run returned while a file was written: {:?}", report.features));
            }
            () = turns => {}
        }
        if world.seen.lock().closing {
            return Err("the run goes on to its end while a file is written".to_owned());
        }
        release.send(()).map_err(|_| "nothing was written")?;
        run.await.map_err(|error| crate::chain(&error))?;
        match World::file(&world.project, "f0.txt") {
            Some(_) => Ok(()),
            None => Err("the write that was under way is lost".to_owned()),
        }
    })
}

/// Notes an event; `ends` are the last words on each feature.
fn see(world: &World, ends: &mut BTreeMap<String, &'static str>, event: &Event) {
    let (feature, end) = match event {
        Event::UpToDate { feature } | Event::Phase { feature, phase: "green", .. } => (feature, "green"),
        Event::Failed { feature, .. } => (feature, "failed"),
        Event::Skipped { feature, .. } => (feature, "skipped"),
        Event::Phase { feature, .. } | Event::Tests { feature, .. } | Event::Refused { feature, .. } => {
            if ends.contains_key(feature) {
                world.wrong(format!("{feature} has ended, and goes on: {event:?}"));
            }
            return;
        }
        _ => return,
    };
    if let Some(before) = ends.insert(feature.clone(), end) {
        world.wrong(format!("{feature} ends twice: {before}, then {end}"));
    }
    let at: usize = feature[1..].parse().unwrap();
    world.seen.lock().begun.remove(&at);
    if end == "green" {
        match World::file(&world.project, &format!("f{at}.txt")) {
            Some(text) if is_done(&text) => {
                note_green(world, at, &text);
                world.seen.lock().firm.insert(at);
            }
            other => world.wrong(format!("{feature} is green, and the project has {other:?}")),
        }
    }
}

/// What is in the project once stays there.
fn note_green(world: &World, feature: usize, text: &str) {
    let mut seen = world.seen.lock();
    let before = seen.green.entry(feature).or_insert_with(|| text.to_owned()).clone();
    if before != text {
        seen.wrong.push(format!("f{feature} is merged twice: {before:?}, then {text:?}"));
    }
}

/// Between two runs: what was merged is in the project, whole or about to be, and nothing else is.
fn check_rest(world: &World) -> Result<(), String> {
    for feature in 0..world.script.features.len() {
        let text = World::file(&world.project, &format!("f{feature}.txt"));
        let green = world.seen.lock().green.get(&feature).cloned();
        match text {
            Some(text) if is_done(&text) => note_green(world, feature, &text),
            Some(text) => return Err(format!("the project has {text:?} of f{feature}")),
            None if green.is_some() => return Err(format!("f{feature} is lost")),
            None => {}
        }
    }
    let shared = World::file(&world.project, "shared.txt").unwrap_or_default();
    let edits = world.seen.lock().edits;
    if shared.lines().filter(|line| line.starts_with("user")).count() != edits {
        return Err(format!("the user has added {edits} lines, and the project has {shared:?}"));
    }
    let outside = world.project.parent().unwrap().join("outside.txt").exists();
    let wrong = std::mem::take(&mut world.seen.lock().wrong);
    match wrong.is_empty() && !outside {
        true => Ok(()),
        false => Err(format!("{}; outside: {outside}", wrong.join("; "))),
    }
}

/// A report against the model and the project.
fn check_report(
    world: &World,
    report: &Report,
    ends: &BTreeMap<String, &'static str>,
    interruption: Option<Interruption>,
) -> Result<(), String> {
    let phases: Vec<_> = report.features.iter().map(|feature| feature.phase).collect();
    if phases.len() != world.script.features.len() {
        return Err(format!("{} features are reported", phases.len()));
    }
    let expected = model::ends(&world.script);
    let is_stopped = interruption == Some(Interruption::Stop);
    let shared = World::file(&world.project, "shared.txt").unwrap_or_default();
    for (at, feature) in report.features.iter().enumerate() {
        let id = format!("f{at}");
        let ended = ends.get(&id).copied();
        let is_end = ["green", "failed", "skipped"].contains(&feature.phase);
        if feature.feature != id || ended != is_end.then_some(feature.phase) {
            return Err(format!(
                "{id} is reported as {} {}, and ended {ended:?}",
                feature.feature, feature.phase
            ));
        }
        let is_green = World::file(&world.project, &format!("f{at}.txt")).is_some();
        let lines = shared.lines().filter(|line| line.starts_with(&format!("{id}#"))).count();
        if is_stopped {
            continue;
        }
        if interruption.is_none() && !expected[at].allows(feature.phase) {
            return Err(format!("{id} is {} ({:?}), not {:?}", feature.phase, feature.reason, expected[at]));
        }
        if is_green != (feature.phase == "green") || lines > usize::from(is_green) {
            return Err(format!("{id} is {}, and the project has {is_green}, {lines} lines", feature.phase));
        }
        if (feature.phase == "green") == feature.reason.is_some() {
            return Err(format!("{id} is {}, because of {:?}", feature.phase, feature.reason));
        }
        if feature.phase == "skipped" {
            check_because(&world.script, at, &phases, feature.reason.as_deref().unwrap_or_default())?;
        }
    }
    let work = world.project.join(".greenwave/work");
    let names = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|at| at.file_name());
    let state = names(work.parent().unwrap()).filter(|name| name.as_encoded_bytes().starts_with(b"old-"));
    let left: Vec<_> = names(&work).chain(state).collect();
    if !is_stopped && !left.is_empty() {
        return Err(format!("copies are left behind: {left:?}"));
    }
    Ok(())
}

/// A feature that was skipped names an ancestor that failed.
fn check_because(script: &Script, feature: usize, phases: &[&str], reason: &str) -> Result<(), String> {
    let named = (0..feature).find(|other| reason.contains(&format!("`f{other}`")));
    match named {
        Some(other) if model::depends(script, feature, other) && phases[other] == "failed" => Ok(()),
        _ => Err(format!("f{feature} is skipped because it {reason:?}")),
    }
}

/// A run after one that went to its end: what was green is green still, by itself.
fn check_again(script: &Script, before: &Report, now: &Report) -> Result<(), String> {
    let expected = model::ends(script);
    for ((before, now), end) in before.features.iter().zip(&now.features).zip(expected) {
        let stays = before.phase == now.phase || (end == End::Any && before.phase != "green");
        if !stays || (before.phase == "green" && !now.up_to_date) {
            return Err(format!(
                "{} was {}, and is {} in the next run",
                now.feature, before.phase, now.phase
            ));
        }
    }
    Ok(())
}

/// The simplest script that still breaks a rule.
pub(super) fn shrink(mut script: Script, mut why: String) -> (Script, String) {
    while let Some((simpler, then)) =
        script.simpler().into_iter().find_map(|script| run(&script).err().map(|why| (script, why)))
    {
        (script, why) = (simpler, then);
    }
    (script, why)
}
