//! The tools for plans: `run_plan`, `plan_status`, `attempts` and `attempt_diff`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use greenwave::{AttemptLog, RunRecords, StoredAttempt};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{Answer, Called};
use super::arguments::Arguments;
use super::plan_runs::PlanRun;
use super::plan_state::PlanState;
use super::progress::{Progress, Unit};
use super::session::Session;
use crate::cli::attempts::{log_of, stored_attempts, summary};
use crate::cli::settings::SetArgs;
use crate::error::CliError;
use crate::planfile::PlanFile;

/// Time that a call waits for the end of a run, in seconds, unless it says otherwise.
const WAIT: usize = 50;
/// Maximum time that a call waits for the end of a run, in seconds.
const WAIT_MAX: usize = 24 * 60 * 60;
/// Maximum size of each text of an attempt, in bytes.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Maximum size of a difference, in bytes.
const DIFF_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of attempts in an answer, the newest ones.
const ATTEMPTS_MAX: usize = 100;

/// A call of `run_plan`.
pub(super) struct RunCall {
    plan: PathBuf,
    budget: Option<f64>,
    wait: Duration,
}

/// Reads the arguments of `run_plan`.
pub(super) fn read_run(session: &Session, arguments: &mut Arguments) -> Result<RunCall, String> {
    let plan = read_plan(session, arguments)?;
    let wait = arguments.number("wait_seconds", WAIT, WAIT_MAX)?;
    let budget = arguments.amount("budget_usd")?;
    Ok(RunCall { plan, budget, wait: Duration::from_secs(wait as u64) })
}

/// Starts a run, unless this server is running the plan, and waits for its end. A call that is
/// cancelled stops the run.
pub(super) async fn run(
    session: &Session,
    call: &RunCall,
    stopped: impl Future<Output = ()>,
    progress: &watch::Sender<Progress>,
) -> Result<Called, CliError> {
    // An invalid plan is an answer with its line.
    PlanFile::read(&call.plan)?;
    let run = session.run_of(&call.plan, call.budget).await?;
    let mut events = run.events();
    let watching = async {
        while events.changed().await.is_ok() {
            let (done, total, failed) = run.state.lock().progress();
            progress.send_replace(Progress { done, total, failed, unit: Unit::Features });
        }
    };
    let (mut stopped, limit) = (pin!(stopped), tokio::time::sleep(call.wait));
    tokio::select! {
        () = run.ended() => {}
        () = limit => {}
        () = watching => {}
        () = &mut stopped => {
            run.stop();
            run.ended().await;
            return Ok(Called::Cancelled);
        }
    }
    Ok(Called::Answered(status_of(&run)))
}

fn status_of(run: &Arc<PlanRun>) -> Answer {
    let is_running = run.is_running();
    let state = run.state.lock();
    let (mut lines, mut structured) = (state.lines(is_running), state.json(is_running));
    let errors = run.errors.lock();
    if !errors.is_empty() {
        lines.insert(0, errors.clone());
        structured["messages"] = json!(*errors);
    }
    if is_running {
        lines.push("call run_plan again to wait on, or plan_status".to_owned());
    }
    Answer { text: lines.join("\n"), structured }
}

/// Reads the arguments of `plan_status`.
pub(super) fn read_plan(session: &Session, arguments: &mut Arguments) -> Result<PathBuf, String> {
    let plan = arguments.required_text("plan")?;
    session.plan(&plan).map_err(|error| error.to_string())
}

/// Shows the run that this server has started, or the newest recorded one.
pub(super) async fn status(session: &Session, plan: &Path) -> Result<Answer, CliError> {
    if let Some(run) = session.started_run(plan).await {
        return Ok(status_of(&run));
    }
    let project = PlanFile::read(plan)?.plan.project;
    let mut state = PlanState::default();
    let recorded = match RunRecords::open(&project)? {
        Some(records) => records.read(1)?,
        None => None,
    };
    for event in recorded.iter().flat_map(greenwave::RecordedRun::events) {
        state.observe(&event);
    }
    Ok(Answer { text: state.lines(false).join("\n"), structured: state.json(false) })
}

/// A call of `attempts`.
pub(super) struct AttemptsCall {
    plan: PathBuf,
    feature: Option<String>,
    /// The attempt that is shown with its texts.
    number: Option<u32>,
}

/// Reads the arguments of `attempts`.
pub(super) fn read_attempts(session: &Session, arguments: &mut Arguments) -> Result<AttemptsCall, String> {
    Ok(AttemptsCall {
        plan: read_plan(session, arguments)?,
        feature: arguments.text("feature")?,
        number: number(arguments, "number")?,
    })
}

/// Lists attempts, or shows one of them.
pub(super) async fn attempts(call: &AttemptsCall) -> Result<Answer, CliError> {
    let log = log_of(&PlanFile::read(&call.plan)?.plan.project, &SetArgs::default().overrides(None, [])?)?;
    let mut found = stored_attempts(log.as_ref(), call.feature.as_deref()).await?;
    found.retain(|attempt| call.number.is_none_or(|number| number == attempt.number));
    if found.is_empty() && (call.feature.is_some() || call.number.is_some()) {
        return Err(CliError::NoSuchAttempt { feature: call.feature.clone(), number: call.number });
    }
    let omitted = found.len().saturating_sub(ATTEMPTS_MAX);
    let shown = &found[omitted..];
    let mut lines: Vec<String> = shown.iter().map(summary).collect();
    let mut all: Vec<Value> = Vec::new();
    for attempt in shown {
        let mut json = outline(attempt);
        if call.number.is_some() {
            for (name, text) in texts(attempt) {
                let text = shortened(text, TEXT_BYTES_MAX);
                if !text.is_empty() {
                    lines.push(format!("{}:\n{text}", name.replace('_', " ")));
                }
                json[name] = json!(text);
            }
        }
        all.push(json);
    }
    if lines.is_empty() {
        lines.push("No attempts are stored".to_owned());
    }
    let structured = json!({"attempts": all, "attempts_omitted": omitted});
    Ok(Answer { text: lines.join("\n"), structured })
}

fn outline(attempt: &StoredAttempt) -> Value {
    let files: Vec<&str> = attempt.files.iter().map(|file| file.path.as_str()).collect();
    json!({
        "feature": attempt.feature,
        "number": attempt.number,
        "outcome": attempt.outcome,
        "reason": shortened(&attempt.reason, TEXT_BYTES_MAX),
        "files": files,
    })
}

fn texts(attempt: &StoredAttempt) -> [(&'static str, &str); 4] {
    [
        ("diff", &attempt.diff),
        ("test_output", &attempt.test_output),
        ("words", &attempt.words),
        ("stderr", &attempt.stderr),
    ]
}

/// A call of `attempt_diff`.
pub(super) struct DiffCall {
    plan: PathBuf,
    feature: String,
    from: u32,
    to: u32,
}

/// Reads the arguments of `attempt_diff`.
pub(super) fn read_diff(session: &Session, arguments: &mut Arguments) -> Result<DiffCall, String> {
    let missing = |name: &str| format!("missing argument `{name}`: expected the number of an attempt");
    Ok(DiffCall {
        plan: read_plan(session, arguments)?,
        feature: arguments.required_text("feature")?,
        from: number(arguments, "from")?.ok_or_else(|| missing("from"))?,
        to: number(arguments, "to")?.ok_or_else(|| missing("to"))?,
    })
}

/// Compares two attempts at a feature.
pub(super) async fn difference(call: &DiffCall) -> Result<Answer, CliError> {
    let log: Option<AttemptLog> =
        log_of(&PlanFile::read(&call.plan)?.plan.project, &SetArgs::default().overrides(None, [])?)?;
    let found = match &log {
        Some(log) => log.diff(&call.feature, call.from, call.to).await?,
        None => None,
    };
    let Some(difference) = found else {
        let feature = Some(call.feature.clone());
        return Err(CliError::NoSuchAttempt { feature, number: None });
    };
    let shown = shortened(&difference, DIFF_BYTES_MAX);
    let structured = json!({"diff": shown, "bytes": difference.len()});
    let text = if shown.is_empty() { "The two attempts have the same files".to_owned() } else { shown };
    Ok(Answer { text, structured })
}

fn number(arguments: &mut Arguments, name: &str) -> Result<Option<u32>, String> {
    let max = u32::MAX as usize;
    // Attempts count from 1.
    let number = arguments.number(name, 0, max)?;
    Ok(u32::try_from(number).ok().filter(|number| *number > 0))
}

/// Returns the start of a long text. `greenwave attempts` prints all of it.
fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max);
    format!("{}\n[… {} bytes left out: `greenwave attempts` prints all …]", &text[..end], text.len() - end)
}
