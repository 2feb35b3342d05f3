//! The tools by name, and which code answers a call.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use rmcp::model::{JsonObject, Tool};
use tokio::sync::watch;

use super::affected::{self, AffectedCall};
use super::answer::{Answer, Called};
use super::arguments::Arguments;
use super::list_tests::{self, ListCall};
use super::plans::{self, AttemptsCall, DiffCall, RunCall};
use super::progress::Progress;
use super::session::Session;
use super::test_history::{self, HistoryCall};
use super::why_rerun::{self, WhyCall};
use super::{plan_tools, run_tests};
use crate::cli::test::call::TestCall;
use crate::error::CliError;

/// A call of a tool, with its arguments.
pub(super) enum ToolCall {
    RunTests(TestCall),
    ListTests(ListCall),
    WhyRerun(WhyCall),
    Affected(AffectedCall),
    TestHistory(HistoryCall),
    RunPlan(RunCall),
    PlanStatus(PathBuf),
    Attempts(AttemptsCall),
    AttemptDiff(DiffCall),
}

/// Returns the descriptions of all tools.
pub(super) fn all() -> Vec<Tool> {
    let mut all = vec![
        run_tests::tool(),
        list_tests::tool(),
        why_rerun::tool(),
        affected::tool(),
        test_history::tool(),
    ];
    all.extend(plan_tools::all());
    all
}

impl ToolCall {
    /// Reads the arguments of a call; `None` if no tool has the name.
    pub(super) fn read(
        session: &Session,
        name: &str,
        arguments: Option<JsonObject>,
    ) -> Option<Result<Self, String>> {
        let mut arguments = Arguments::new(arguments);
        let given = &mut arguments;
        let read = match name {
            "run_tests" => run_tests::read(session, given).map(Self::RunTests),
            "list_tests" => list_tests::read(session, given).map(Self::ListTests),
            "why_rerun" => why_rerun::read(session, given).map(Self::WhyRerun),
            "affected" => affected::read(session, given).map(Self::Affected),
            "test_history" => test_history::read(session, given).map(Self::TestHistory),
            "run_plan" => plans::read_run(session, given).map(Self::RunPlan),
            "plan_status" => plans::read_plan(session, given).map(Self::PlanStatus),
            "attempts" => plans::read_attempts(session, given).map(Self::Attempts),
            "attempt_diff" => plans::read_diff(session, given).map(Self::AttemptDiff),
            _ => return None,
        };
        Some(read.and_then(|call| arguments.finish().map(|()| call)))
    }

    /// Answers the call, unless `stopped` completes before.
    ///
    /// # Errors
    /// Those of the commands with the same purpose.
    pub(super) async fn answer(
        self,
        session: &Session,
        stopped: impl Future<Output = ()>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Called, CliError> {
        let answering: Pin<Box<dyn Future<Output = Result<Answer, CliError>> + '_>> = match &self {
            Self::RunTests(call) => return run_tests::run(session, call, stopped, progress).await,
            Self::RunPlan(call) => return plans::run(session, call, stopped, progress).await,
            Self::ListTests(call) => Box::pin(list_tests::list(call)),
            Self::WhyRerun(call) => Box::pin(why_rerun::explain(call)),
            Self::Affected(call) => Box::pin(affected::list(call)),
            Self::TestHistory(call) => Box::pin(async { test_history::tell(call) }),
            Self::PlanStatus(plan) => Box::pin(plans::status(session, plan)),
            Self::Attempts(call) => Box::pin(plans::attempts(call)),
            Self::AttemptDiff(call) => Box::pin(plans::difference(call)),
        };
        tokio::select! {
            answer = answering => Ok(Called::Answered(answer?)),
            () = stopped => Ok(Called::Cancelled),
        }
    }
}
