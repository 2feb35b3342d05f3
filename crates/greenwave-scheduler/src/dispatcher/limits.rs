//! Limits of a run.

use crate::Resources;

/// Resources and other limits of a run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Pools of resources. [`ScheduleStats::lost`](crate::ScheduleStats::lost) refers to the pool
    /// named `workers`.
    pub resources: Resources,
    /// Maximum number of tasks in progress: begun and not finished, over all their stages but those
    /// [without a slot](crate::Needs::without_task_slot). At least 1. No limit by default.
    pub tasks_max: usize,
    /// Maximum number of times that a ready stage that does not fit is overtaken by stages of lower
    /// rank. 0 forbids overtaking; the default is 16.
    ///
    /// Beyond that, every pool and lock that the stage needs, and a slot under `tasks_max`, are
    /// reserved for it: stages of lower rank that need any of these do not start before it. So it
    /// starts as soon as the current holders and stages of higher rank have ended. Other stages
    /// continue. While `tasks_max` is exhausted, only the next slot is reserved, and tasks in
    /// progress continue. Of several stages with the same needs, only the one of highest rank is
    /// counted. Stages [in the background](crate::Needs::in_background) overtake only stages that
    /// lack units which they take.
    pub overtakes_max: u32,
    /// Effect of a failure on tasks that do not depend on the failed one.
    pub on_failure: OnFailure,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resources: Resources::default(),
            tasks_max: usize::MAX,
            overtakes_max: 16,
            on_failure: OnFailure::KeepGoing,
        }
    }
}

/// The effect of a failed task on tasks that do not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They run regardless.
    #[default]
    KeepGoing,
    /// Running stages finish; no other stage starts.
    StopAtFirst,
}
