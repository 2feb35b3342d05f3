//! Has an agent write the features of a plan. The agent works in a copy of the project, as for a
//! feature, and nothing of it is merged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use greenwave::{
    AttemptLog, BaseKind, Engine, Environment, Event, Feature, Guards, Plan, ResultKind, RunScope, Settings,
    Test, forget, format_dollars,
};
use parking_lot::Mutex;

use super::{PlanArgs, Planned};
use crate::cli::run::{engine_settings, problems};
use crate::config::Config;
use crate::details;
use crate::diagnostic::Document;
use crate::error::CliError;
use crate::output;
use crate::planfile::PlanFile;
use crate::planning::{Draft, PLANNED_FILE, Template, is_planned_test, prompt};
use crate::printer::Printer;
use crate::signals::StopOnSignal;
use crate::supervisor;

/// Id of the feature whose answer is the plan.
const FEATURE: &str = "greenwave-plan";
/// Start of the feedback before the agent has written a plan.
const NO_PLAN: &str = "no plan yet";

/// The end of a request for a plan.
pub(super) enum Asked {
    /// The agent has written a plan without errors.
    Planned(Planned),
    /// The agent has written none. The reason was printed.
    Refused,
    /// A signal has stopped the agent.
    Stopped(u8),
}

/// Asks the agent until its plan has no errors, or the attempts are used up.
pub(super) async fn ask(
    args: &PlanArgs,
    config: Config,
    template: &Template,
    draft: &Draft,
    printer: &Printer,
) -> Result<Asked, CliError> {
    let plan = plan(args, template, draft);
    let settings = engine_settings(config.settings, &args.project)?;
    let environment = supervisor::environment();
    let accepted = Arc::new(Mutex::new(String::new()));
    let check = Check {
        // Paths in it mean nothing in the copy unless they are absolute.
        header: template.header(Path::new("/"), &args.project),
        draft: draft.clone(),
        environment: environment.clone(),
        accepted: Arc::clone(&accepted),
    };
    let (opened, own) = (plan.clone(), settings.clone());
    let opened = tokio::task::spawn_blocking(move || {
        Engine::open_checking(opened, own, environment, move |project| check.run(project))
    });
    let engine = opened.await.expect("opening a plan does not panic and is not cancelled")?;
    let engine = engine.with_scope(RunScope::default())?;
    let signals = StopOnSignal::start(engine.stopper())?;
    let mut events = engine.events();
    let mut running = tokio::spawn(engine.run());
    let report = loop {
        tokio::select! {
            // Events precede the end of the run.
            biased;
            Some(event) = events.next() => show(&event, printer),
            report = &mut running => break report.expect("a run does not panic and is not cancelled")?,
        }
    };
    if let Some(code) = signals.finish() {
        return Ok(Asked::Stopped(code));
    }
    while let Some(event) = events.try_next() {
        show(&event, printer);
    }
    if let Some(cost) = report.totals.usage.cost {
        printer.line(&format!("  cost: {}", format_dollars(cost)));
    }
    let is_planned = report.features.iter().all(|feature| feature.phase == "held");
    let tests = if is_planned { new_tests(args, &settings).await? } else { BTreeMap::new() };
    if let Err(error) = forget(&plan, &settings, &[FEATURE.to_owned()]) {
        output::warn("the next plan may continue with the answer to this one", &error.into());
    }
    if !is_planned {
        printer.line(&format!("No plan was written. To see the answers: greenwave attempts {FEATURE}"));
        return Ok(Asked::Refused);
    }
    let features = std::mem::take(&mut *accepted.lock());
    Ok(Asked::Planned(Planned { features, tests }))
}

/// Returns a plan whose only feature is to write a plan.
fn plan(args: &PlanArgs, template: &Template, draft: &Draft) -> Plan {
    let agents: Vec<&str> = template.plan.agents.keys().map(String::as_str).collect();
    let feature = Feature {
        id: FEATURE.to_owned(),
        title: "A plan".to_owned(),
        prompt: prompt(args.goal.as_deref(), draft, &agents),
        agent: draft.agent.clone(),
        tests: vec![Test::new("plan", ["greenwave", "run", "--check", PLANNED_FILE])],
        attempts_max: args.attempts,
        // Its files are not merged.
        hold: true,
        red: Some(format!("^{NO_PLAN}")),
        may_edit: vec!["*".to_owned()],
        ..Feature::default()
    };
    Plan {
        name: "plan".to_owned(),
        file: None,
        project: args.project.clone(),
        features: vec![feature],
        base: BaseKind::Worktree,
        result: ResultKind::Files,
        setup: Vec::new(),
        teardown: Vec::new(),
        guards: Guards::Off,
        notify: Vec::new(),
        ..template.plan.clone()
    }
}

/// The check of the file that an agent has written, as by `greenwave run --check`.
struct Check {
    header: String,
    draft: Draft,
    environment: Environment,
    /// The features of the plan without errors.
    accepted: Arc<Mutex<String>>,
}

impl Check {
    /// Checks the plan in a working copy. Returns its errors, for the agent.
    fn run(&self, project: &Path) -> Result<(), String> {
        let path = project.join(PLANNED_FILE);
        let shown_path = path.display().to_string();
        let shown = |text: String| text.replace(&shown_path, PLANNED_FILE);
        let written = Document::read(&path)
            .map_err(|error| format!("{NO_PLAN}: cannot read {PLANNED_FILE}: {error}"))?;
        let features = self.draft.features_of_agent(&written).map_err(shown)?;
        let text = format!("project = \".\"\n{}{features}", self.header);
        let file = PlanFile::parse(Document { path, text }).map_err(|error| shown(error.to_string()))?;
        let problems = problems(&file, &RunScope::default(), &self.environment);
        if let Err(errors) = problems {
            return Err(shown(errors.iter().map(describe).collect::<Vec<_>>().join("\n\n")));
        }
        *self.accepted.lock() = features;
        Ok(())
    }
}

fn describe(error: &CliError) -> String {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

/// Returns the tests that the agent has created beside its plan.
async fn new_tests(args: &PlanArgs, settings: &Settings) -> Result<BTreeMap<String, Vec<u8>>, CliError> {
    let Some(log) = AttemptLog::open(&args.project, settings)? else { return Ok(BTreeMap::new()) };
    let number = log.attempts(FEATURE).await?.last().map_or(0, |attempt| attempt.number);
    let Some(files) = log.files(FEATURE, number).await? else { return Ok(BTreeMap::new()) };
    // The project may be a directory of the repository that was copied.
    let mut prefixes = files.after.keys().filter_map(|path| path.strip_suffix(PLANNED_FILE));
    let prefix = prefixes.next().unwrap_or_default().to_owned();
    let created = files.after.into_iter().filter(|(path, _)| !files.before.contains_key(path));
    let tests = created.filter_map(|(path, content)| {
        let path = path.strip_prefix(&prefix)?.to_owned();
        is_planned_test(&path).then_some((path, content))
    });
    Ok(tests.collect())
}

fn show(event: &Event, printer: &Printer) {
    // The answer is held so that nothing of it is merged, which is nobody's decision.
    if matches!(event, Event::NeedsYou { kind: "approval", .. } | Event::Phase { phase: "held", .. }) {
        return;
    }
    printer.json(|| {
        serde_json::to_string(event).expect("events have string keys and values that JSON can represent")
    });
    let lines = match event {
        Event::Phase { phase: "yellow", attempt, .. } => {
            vec![format!("  attempt {attempt}: the agent writes a plan")]
        }
        Event::Waiting { reason, .. } => vec![format!("  waiting: {reason}")],
        Event::NeedsYou { reason, action, .. } => vec![format!("  needs you: {reason}: {action}")],
        Event::Refused { attempt, details, .. } => {
            let mut lines = vec![format!("  attempt {attempt} rejected:")];
            lines.extend(details::lines(details, &format!("greenwave attempts {FEATURE}")));
            lines
        }
        Event::Failed { reason, .. } => vec![format!("  failed: {reason}")],
        Event::Note { feature: Some(_), message, .. } => vec![format!("  note: {message}")],
        _ => Vec::new(),
    };
    lines.iter().for_each(|line| printer.line(line));
}
