//! Runs scripts in virtual time and checks their reports, events and files against the model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use greenwave_testing::{Test, TestSlots};

use super::model;
use super::script::{Answer, FeatureScript, Guard, Hold, Interruption, Script};
use super::world::{
    ANSWER_MAX, GUARD, LINES, SimulatedAgent, SimulatedTests, TEST_MAX, UNITS, World, is_done,
};
use crate::engine::Engine;
use crate::mask::Mask;
use crate::setup::Starter;
use crate::steps::Steps;
use crate::{
    AgentSpec, Candidates, CommandSpec, Decision, Edits, Event, Feature, Guards, Plan, Report, ResultKind,
    RunScope, Settings, TestAgent, adapters, decide,
};

/// Coverage of a simulation: the number of runs, steps and ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Coverage {
    pub(super) scripts: usize,
    pub(super) runs: usize,
    pub(super) steps: usize,
    pub(super) interrupted: usize,
    pub(super) batches_finished: usize,
    /// Number of tests of merges that started beside another one.
    pub(super) merge_tests_beside: usize,
    /// Number of runs of the guard that started beside another one.
    pub(super) guards_beside: usize,
    pub(super) green: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// Number of times that a feature waited for the user to change a file again.
    pub(super) blocked: usize,
    /// Number of times that an answer was held.
    pub(super) held: usize,
    /// Number of features that the last run left to the user's decision.
    pub(super) undecided: usize,
}

impl Coverage {
    pub(super) fn add(&mut self, other: &Coverage) {
        self.scripts += other.scripts;
        self.runs += other.runs;
        self.steps += other.steps;
        self.interrupted += other.interrupted;
        self.batches_finished += other.batches_finished;
        self.merge_tests_beside += other.merge_tests_beside;
        self.guards_beside += other.guards_beside;
        self.green += other.green;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.blocked += other.blocked;
        self.held += other.held;
        self.undecided += other.undecided;
    }
}

/// Runs a script to its end.
///
/// # Errors
/// Describes the rule that was broken.
pub(super) fn run(script: &Script) -> Result<Coverage, String> {
    let directory = directory();
    let project = directory.path().join("project");
    create_project(script, &project);
    let world = Arc::new(World::new(script.clone(), project));
    let mut coverage = Coverage { scripts: 1, ..Coverage::default() };
    let mut last = None;
    // The interrupted runs are followed by one that completes, and by one that finds all features
    // done.
    for number in 0..script.interruptions.len() + 2 {
        let ended = run_once(&world, number)?;
        coverage.runs += 1;
        coverage.steps += world.observed.lock().steps;
        coverage.interrupted += usize::from(ended.is_none());
        coverage.blocked += std::mem::take(&mut world.observed.lock().blocked);
        coverage.held += std::mem::take(&mut world.observed.lock().held);
        note_failures(&world);
        check_project(&world)?;
        if number > script.interruptions.len() {
            let report: &Report = last.as_ref().ok_or("the last run was interrupted")?;
            let now = ended.as_ref().ok_or("a run was interrupted without an interruption")?;
            check_resumed(report, now)?;
        }
        last = ended;
    }
    coverage.batches_finished = world.observed.lock().batches_finished;
    coverage.merge_tests_beside = world.observed.lock().merge_tests_beside;
    coverage.guards_beside = world.observed.lock().guards_beside;
    for feature in last.iter().flat_map(|report| &report.features) {
        match feature.phase {
            "green" => coverage.green += 1,
            "failed" => coverage.failed += 1,
            "held" | "waiting" => coverage.undecided += 1,
            _ => coverage.skipped += 1,
        }
    }
    Ok(coverage)
}

/// Creates the project of a script.
pub(super) fn create_project(script: &Script, project: &Path) {
    fs::create_dir_all(project.join("tests")).unwrap();
    fs::write(project.join("shared.txt"), format!("{}\n", LINES.join("\n"))).unwrap();
    for at in 0..script.features.len() {
        fs::write(project.join(format!("old-f{at}.txt")), "old\n").unwrap();
        fs::write(project.join(format!("tests/test_f{at}.txt")), "test\n").unwrap();
    }
    if script.on_branch {
        let author = ["-c", "user.name=A", "-c", "user.email=a@b"];
        for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "start"]] {
            let mut git = std::process::Command::new("git");
            let status = git.args(author).args(arguments).current_dir(project).status().unwrap();
            assert!(status.success(), "git {arguments:?}");
        }
    }
}

/// Notes the features that have used up attempts or were blocked by an edit of the user. They go on
/// with a new round in later runs, so the model does not predict their ends.
fn note_failures(world: &World) {
    let mut observed = world.observed.lock();
    let failed = std::mem::take(&mut observed.failed_now);
    observed.failed_before.extend(failed);
}

/// Returns whether the model predicts the end of a feature: no earlier run has failed it or one of
/// its dependencies.
fn is_predicted(world: &World, feature: usize) -> bool {
    let observed = world.observed.lock();
    let before = &observed.failed_before;
    let is_unguarded = |other: usize| world.script.features[other].answers.contains(&Answer::Unguarded);
    let has_no_guard = world.script.interruptions.iter().any(|(kind, _)| *kind == Interruption::Unguard);
    let all = 0..world.script.features.len();
    let mut related = all.filter(|&other| other == feature || model::depends(&world.script, feature, other));
    let has_failed = |&other: &usize| other == feature || model::depends(&world.script, feature, other);
    !before.iter().any(has_failed) && (!has_no_guard || !related.any(is_unguarded))
}

/// Creates a directory, in memory if possible, because runs sync many small files.
pub(super) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory).ok() } else { None };
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

pub(super) fn plan(world: &World) -> Plan {
    let agent = |_| {
        AgentSpec::Command(CommandSpec {
            command: vec!["simulated".to_owned()],
            edits: Edits::Answer,
            ..CommandSpec::default()
        })
    };
    let features = world.script.features.iter().enumerate().map(|(at, feature)| Feature {
        id: format!("f{at}"),
        depends_on: feature.depends_on.iter().map(|other| format!("f{other}")).collect(),
        prompt: "Write it.".to_owned(),
        agent: format!("a{at}"),
        tests: if feature.written.is_empty() { vec![test(&format!("test{at}"))] } else { vec![] },
        test_agent: (!feature.written.is_empty())
            .then(|| TestAgent { agent: format!("t{at}"), may_write_code: false }),
        attempts_max: feature.attempts_max,
        resources: [("unit".to_owned(), feature.units)].into(),
        hold: feature.hold != Hold::No,
        candidates: Some(Candidates::Count(1 + feature.rivals.len() as u32)),
        review: feature.review.then(|| test(&format!("review{at}"))),
        ..Feature::default()
    });
    Plan {
        name: "simulated".to_owned(),
        project: world.project.clone(),
        agents: (0..world.script.features.len())
            .flat_map(|at| [(format!("a{at}"), agent(at)), (format!("t{at}"), agent(at))])
            .collect(),
        resources: [("unit".to_owned(), UNITS)].into(),
        features: features.collect(),
        guards: match world.script.guard {
            Guard::None => Guards::Off,
            Guard::Passes | Guard::FailsAtStart => Guards::Tests(vec![test(GUARD)]),
        },
        result: if world.script.on_branch { ResultKind::Branch } else { ResultKind::Files },
        ..Plan::default()
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
    open_plan(world, plan(world))
}

/// Opens an engine with a plan whose agents and tests are those of the world.
pub(super) fn open_plan(world: &Arc<World>, plan: Plan) -> Result<Engine, crate::Error> {
    let settings = settings(&world.script);
    let pool = |feature: usize, writes_tests: bool| {
        let name = format!("{}{feature}", if writes_tests { "t" } else { "a" });
        let agent = SimulatedAgent { world: Arc::clone(world), feature, writes_tests };
        (name.clone(), adapters::sessions(&name, Arc::new(agent), &settings))
    };
    let agents: BTreeMap<_, _> =
        (0..plan.features.len()).flat_map(|at| [pool(at, false), pool(at, true)]).collect();
    let steps = Steps::observed_by(Arc::clone(world) as _);
    let copies = world.project.with_file_name("copies");
    let starter = Starter::default();
    let engine =
        Engine::assemble(plan, settings, agents, steps, Mask::default(), (&copies, starter), |_, _| {
            Ok(Arc::new(SimulatedTests(Arc::clone(world), TestSlots::new(1))))
        })?;
    let wait_for_approval = world.script.waits_for_approval();
    engine.with_scope(RunScope { wait_for_approval, ..RunScope::default() })
}

/// Returns an upper bound of the virtual time of a run: all its work in sequence.
fn time_max(script: &Script) -> Duration {
    let count = script.features.len() as u32;
    let answers = |feature: &FeatureScript| {
        let of_code = (feature.attempts_max + 1) * (1 + feature.rivals.len() as u32);
        of_code + if feature.written.is_empty() { 0 } else { feature.attempts_max + 1 }
    };
    let attempts: u32 = script.features.iter().map(answers).sum();
    attempts * (ANSWER_MAX + (count + 4) * TEST_MAX) + Duration::from_secs(60)
}

/// Runs the engine once. Returns `None` if the run was interrupted before its end.
pub(super) fn run_once(world: &Arc<World>, number: usize) -> Result<Option<Report>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap();
    let result = runtime.block_on(async {
        let engine = open(world).map_err(|error| crate::chain(&error))?;
        world.begin(&engine, number);
        let mut ends = BTreeMap::new();
        let mut events = engine.events();
        let run = tokio::time::timeout(time_max(&world.script), engine.run());
        let mut run = pin!(run);
        let undo = async {
            world.edited.notified().await;
            match world.script.patience_ms {
                Some(patience) => tokio::time::sleep(Duration::from_millis(patience)).await,
                None => std::future::pending().await,
            }
            world.undo_edit();
            std::future::pending::<()>().await;
        };
        let mut undo = pin!(undo);
        let report = loop {
            tokio::select! {
                biased;
                () = &mut undo => {}
                // Events come first, so that an event is recorded before its consequences.
                Some(event) = events.next() => record_event(world, &mut ends, &event),
                () = world.killed.notified() => return Ok(None),
                report = &mut run => break report,
            }
        };
        while let Some(event) = events.try_next() {
            record_event(world, &mut ends, &event);
        }
        let report = report.map_err(|_| format!("run {number} does not end"))?;
        let report = report.map_err(|error| format!("run {number}: {}", crate::chain(&error)))?;
        let interruption = {
            let observed = world.observed.lock();
            observed.interruption.filter(|_| observed.interrupted).map(|(kind, _)| kind)
        };
        check_report(world, &report, &ends, interruption)?;
        Ok(interruption.is_none().then_some(report))
    });
    // Waits for blocking writes, like a process that exits.
    drop(runtime);
    let violations = std::mem::take(&mut world.observed.lock().violations);
    if violations.is_empty() {
        result.map_err(|error: String| format!("run {number}: {error}"))
    } else {
        Err(format!("run {number}: {}", violations.join("; ")))
    }
}

/// Stops a run while it writes a merge into the project, and delays that write.
///
/// # Errors
/// Fails if the run returns before the write has ended.
pub(super) fn stop_during_a_write(script: &Script) -> Result<(), String> {
    let directory = directory();
    let project = directory.path().join("project");
    create_project(script, &project);
    let world = Arc::new(World::new(script.clone(), project));
    let (release, gate) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        // Dropped before the runtime, which waits for the write.
        let release = release;
        let engine = open(&world).map_err(|error| crate::chain(&error))?;
        world.begin(&engine, 0);
        *world.gate.lock() = Some(gate);
        let mut run = pin!(engine.run());
        // After the stop, more turns than an aborted stage could need.
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
        if world.observed.lock().closing {
            return Err("the run continues to its end while a file is written".to_owned());
        }
        release.send(()).map_err(|_| "nothing was written")?;
        run.await.map_err(|error| crate::chain(&error))?;
        match World::file(&world.project, "f0.txt") {
            Some(_) => Ok(()),
            None => Err("the write in flight is lost".to_owned()),
        }
    })
}

/// Records an event. `ends` holds the final phase of each feature.
fn record_event(world: &World, ends: &mut BTreeMap<String, &'static str>, event: &Event) {
    if let Event::NeedsYou { feature, attempt, kind: "approval", .. } = event {
        return decide_about(world, number(feature), *attempt);
    }
    let (feature, end) = match event {
        Event::UpToDate { feature } | Event::Phase { feature, phase: "green", .. } => (feature, "green"),
        Event::Failed { feature, .. } => (feature, "failed"),
        Event::Skipped { feature, .. } => (feature, "skipped"),
        Event::Phase { feature, .. }
        | Event::Tests { feature, .. }
        | Event::Continued { feature, .. }
        | Event::Waiting { feature, .. }
        | Event::Refused { feature, .. } => {
            if matches!(event, Event::Waiting { reason, .. } if reason.starts_with("your change")) {
                world.observed.lock().blocked += 1;
            }
            if ends.contains_key(feature) {
                world.violation(format!("{feature} has ended, and continues: {event:?}"));
            }
            if matches!(event, Event::Phase { phase: "merging" | "held", .. }) && world.script.is_crowded() {
                // It makes room for others.
                world.observed.lock().started.remove(&number(feature));
            }
            return;
        }
        _ => return,
    };
    if let Some(before) = ends.insert(feature.clone(), end) {
        world.violation(format!("{feature} ends twice: {before}, then {end}"));
    }
    let at = number(feature);
    world.observed.lock().started.remove(&at);
    if end == "failed" {
        world.observed.lock().failed_now.insert(at);
    }
    if end == "green" {
        match world.merged(&format!("f{at}.txt")) {
            Some(text) if is_done(&text) => {
                record_green(world, at, &text);
                world.observed.lock().reported_green.insert(at);
            }
            other => world.violation(format!("{feature} is green, and the project has {other:?}")),
        }
    }
}

/// Lets the user decide about an answer that is held.
fn decide_about(world: &World, feature: usize, attempt: u32) {
    let (hold, decision) = {
        let mut observed = world.observed.lock();
        observed.held += 1;
        let hold = world.script.features[feature].hold;
        let decision = match hold {
            Hold::No | Hold::Undecided => None,
            Hold::Rejected if *observed.rejected.entry(feature).or_insert(attempt) == attempt => {
                Some(Decision::Reject { comment: "No.".to_owned() })
            }
            Hold::Approved | Hold::Rejected => {
                observed.approved.insert(feature);
                Some(Decision::Approve)
            }
        };
        (hold, decision)
    };
    if hold == Hold::No {
        world.violation(format!("f{feature} is held, although the plan does not say so"));
    }
    let Some(decision) = decision else { return };
    match decide(&plan(world), &settings(&world.script), &format!("f{feature}"), &decision) {
        Ok(Some(about)) if about == attempt => {}
        other => world.violation(format!("no decision about f{feature}, attempt {attempt}: {other:?}")),
    }
}

/// Checks that the user has approved a feature that is merged, and that its last answer was not
/// rejected.
fn check_approval(world: &World, feature: usize) {
    let hold = world.script.features[feature].hold;
    let problem = {
        let observed = world.observed.lock();
        let requested = observed.requested.iter().filter(|((other, _), _)| *other == feature);
        let requested = requested.map(|(_, attempt)| attempt).max();
        let rejected = observed.rejected.get(&feature);
        match hold {
            Hold::No => None,
            _ if !observed.approved.contains(&feature) => Some("without the user's approval"),
            Hold::Rejected if requested <= rejected => Some("with an answer that the user has rejected"),
            _ => None,
        }
    };
    if let Some(problem) = problem {
        world.violation(format!("f{feature} is merged {problem}"));
    }
}

/// Returns the number of a feature in its id.
fn number(feature: &str) -> usize {
    feature[1..].parse().unwrap()
}

/// Records the merged file of a feature, which must never change afterwards.
fn record_green(world: &World, feature: usize, text: &str) {
    check_approval(world, feature);
    let mut observed = world.observed.lock();
    let before = observed.green.entry(feature).or_insert_with(|| text.to_owned()).clone();
    if before != text {
        observed.violations.push(format!("f{feature} is merged twice: {before:?}, then {text:?}"));
    }
}

/// Checks the project between two runs: it holds the files of merged features and no others.
pub(super) fn check_project(world: &World) -> Result<(), String> {
    for feature in 0..world.script.features.len() {
        check_test(world, feature)?;
        let text = world.merged(&format!("f{feature}.txt"));
        let green = world.observed.lock().green.get(&feature).cloned();
        match text {
            Some(text) if is_done(&text) => record_green(world, feature, &text),
            Some(_) if is_user_file(world, &format!("f{feature}.txt")) => {}
            Some(text) => return Err(format!("the project has {text:?} of f{feature}")),
            None if green.is_some() => return Err(format!("f{feature} is lost")),
            None => {}
        }
    }
    world.check_user_file();
    world.check_user_lines();
    let outside = world.project.parent().unwrap().join("outside.txt").exists();
    let violations = std::mem::take(&mut world.observed.lock().violations);
    if violations.is_empty() && !outside {
        Ok(())
    } else {
        Err(format!("{}; outside: {outside}", violations.join("; ")))
    }
}

/// Returns whether the user has changed a file and not changed it back.
fn is_user_file(world: &World, name: &str) -> bool {
    world.observed.lock().user_file.as_ref().is_some_and(|(of_user, _)| of_user == name)
}

/// Checks that the test of a feature has never changed.
fn check_test(world: &World, feature: usize) -> Result<(), String> {
    let name = format!("tests/test_f{feature}.txt");
    let test = World::file(&world.project, &name);
    if test.as_deref() != Some("test\n") || world.merged(&name).is_some_and(|text| text != "test\n") {
        return Err(format!("the test of f{feature} is {test:?}"));
    }
    Ok(())
}

/// Checks the test that an agent has written for a feature, after a run that was not interrupted:
/// it is in the project with the code.
fn check_written(world: &World, feature: usize) -> Result<(), String> {
    let name = format!("f{feature}.txt");
    if world.script.features[feature].written.is_empty() || is_user_file(world, &name) {
        return Ok(());
    }
    let is_merged = world.merged(&name).is_some_and(|text| is_done(&text));
    let test = world.merged(&World::written_test(feature));
    if test.as_ref().is_some_and(|text| text.starts_with("good")) != is_merged || test.is_some() != is_merged
    {
        return Err(format!(
            "the written test of f{feature} is {test:?}, and its code is merged: {is_merged}"
        ));
    }
    Ok(())
}

/// Checks the file that a feature may remove, after a run that was not interrupted. It exists
/// unless the feature is merged and removes it.
fn check_removal(world: &World, feature: usize) -> Result<(), String> {
    let happens = |kind| world.script.interruptions.iter().any(|(other, _)| *other == kind);
    // The files of a rejected answer stay as they are in the workspace.
    let is_rejected = world.observed.lock().rejected.contains_key(&feature);
    if happens(Interruption::Remove) || happens(Interruption::Change) || is_rejected {
        return Ok(());
    }
    let own = world.merged(&format!("f{feature}.txt")).unwrap_or_default();
    let old = world.merged(&format!("old-f{feature}.txt"));
    // A branch does not exist before its first commit.
    let exists = !world.script.on_branch || world.merged("shared.txt").is_some();
    if exists && old.is_some() == own.contains(" deletes") {
        return Err(format!("f{feature} is {own:?}, and the file that it may remove is {old:?}"));
    }
    Ok(())
}

/// Checks a report against the model and the project.
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
    let shared = world.merged("shared.txt").unwrap_or_default();
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
        let is_green = world.merged(&format!("f{at}.txt")).is_some_and(|text| is_done(&text));
        let lines = shared.lines().filter(|line| line.starts_with(&format!("{id}#"))).count();
        if is_stopped {
            continue;
        }
        if interruption.is_none() && is_predicted(world, at) && !expected[at].allows(feature.phase) {
            return Err(format!("{id} is {} ({:?}), not {:?}", feature.phase, feature.reason, expected[at]));
        }
        if interruption.is_none() {
            check_removal(world, at)?;
            check_written(world, at)?;
        }
        if is_green != (feature.phase == "green") || lines > usize::from(is_green) {
            return Err(format!("{id} is {}, and the project has {is_green}, {lines} lines", feature.phase));
        }
        if (feature.phase == "green") == feature.reason.is_some() {
            return Err(format!("{id} is {}, because of {:?}", feature.phase, feature.reason));
        }
        if feature.phase == "skipped" {
            check_skip_reason(&world.script, at, &phases, feature.reason.as_deref().unwrap_or_default())?;
        }
    }
    let copies = world.project.with_file_name("copies");
    let left: Vec<_> =
        fs::read_dir(&copies).into_iter().flatten().flatten().map(|at| at.file_name()).collect();
    if !is_stopped && !left.is_empty() {
        return Err(format!("workspaces are left behind: {left:?}"));
    }
    Ok(())
}

/// Checks that a skipped feature names an ancestor that failed.
fn check_skip_reason(script: &Script, feature: usize, phases: &[&str], reason: &str) -> Result<(), String> {
    let named = (0..feature).find(|other| reason.contains(&format!("`f{other}`")));
    match named {
        Some(other) if model::depends(script, feature, other) && phases[other] == "failed" => Ok(()),
        _ => Err(format!("f{feature} is skipped because it {reason:?}")),
    }
}

/// Checks a run after a complete one: green features are up to date. Others have a new round.
fn check_resumed(before: &Report, now: &Report) -> Result<(), String> {
    for (before, now) in before.features.iter().zip(&now.features) {
        let stays = before.phase != "green" || (now.phase == "green" && now.up_to_date);
        if !stays {
            return Err(format!(
                "{} was {}, and is {} in the next run",
                now.feature, before.phase, now.phase
            ));
        }
    }
    Ok(())
}

/// Returns the simplest script that still breaks a rule, and the rule.
pub(super) fn shrink(mut script: Script, mut why: String) -> (Script, String) {
    while let Some((simpler, simpler_why)) =
        script.simpler().into_iter().find_map(|script| run(&script).err().map(|why| (script, why)))
    {
        (script, why) = (simpler, simpler_why);
    }
    (script, why)
}
