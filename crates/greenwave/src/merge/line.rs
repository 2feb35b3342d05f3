//! The features that wait for their merge, and the decision when they are merged.
//!
//! Every merge runs the tests of all green features, so merges one by one cost a number of tests
//! that grows with the square of the number of features. Features that are ready therefore wait for
//! each other as long as nothing waits for them, and are merged as one batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::standing::{Standing, Standings};
use super::verdict::MergeVerdict;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::tree::Change;

/// Maximum time that a feature waits while others work, unless merges take long.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Maximum share of the time that merges take while features work, as a divisor: merges that take
/// 20 s follow each other after 200 s.
const SHARE: u32 = 10;

/// A feature that is ready to be merged.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) id: FeatureId,
    /// Number of attempts.
    pub(super) attempts: u32,
    /// Changes of the feature.
    pub(super) own: Arc<[Change]>,
    /// Failure of its test before the code existed.
    pub(super) red: String,
    /// Cost of its agent in this run, in millionths of a US dollar.
    pub(super) cost: Option<u64>,
    /// Counts of the tests that ran for its merge.
    pub(super) report: FeatureReport,
    /// Notified when the feature has a verdict or leads the next batch.
    ready: Arc<Notify>,
}

impl Candidate {
    pub(super) fn new(id: FeatureId, attempts: u32, own: Vec<Change>) -> Self {
        let (own, report, ready) = (own.into(), FeatureReport::default(), Arc::default());
        Self { id, attempts, own, red: String::new(), cost: None, report, ready }
    }

    /// Waits until the feature may have a verdict, or may lead the next batch.
    pub(super) async fn ready(&self, until: Option<Instant>) {
        match until {
            // The line is asked again in either case.
            Some(until) => drop(tokio::time::timeout_at(until, self.ready.notified()).await),
            None => self.ready.notified().await,
        }
    }
}

/// Answer to a feature in the line.
#[derive(Debug)]
pub(super) enum Turn {
    /// It leads the next batch.
    Leads,
    /// Its merge was decided.
    Decided(Box<(MergeVerdict, FeatureReport)>),
    /// It waits, at most until this time.
    Waits(Option<Instant>),
}

/// The line of features that wait for their merge.
#[derive(Debug)]
pub(super) struct MergeLine {
    standings: Standings,
    /// In the order of arrival.
    waiting: Vec<Candidate>,
    verdicts: BTreeMap<FeatureId, (MergeVerdict, FeatureReport)>,
    /// Feature that merges the next batch, or does so now.
    leader: Option<FeatureId>,
    /// Time of the last batch, or of the first arrival in an empty line.
    since: Instant,
    /// Duration of the last batch.
    took: Duration,
    /// Whether some feature is green. The first merge repeats no test of another feature.
    has_green: bool,
    /// Whether no feature starts any more, so that waiting has no use.
    is_closed: bool,
}

impl MergeLine {
    /// Creates an empty line. `has_green` says whether earlier runs have made features green.
    pub(super) fn new(standings: Standings, has_green: bool) -> Self {
        Self {
            standings,
            waiting: Vec::new(),
            verdicts: BTreeMap::new(),
            leader: None,
            since: Instant::now(),
            took: Duration::ZERO,
            has_green,
            is_closed: false,
        }
    }

    /// Adds a feature to the end of the line.
    pub(super) fn arrive(&mut self, candidate: Candidate) {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        let id = candidate.id;
        self.verdicts.remove(&id);
        self.waiting.retain(|other| other.id != id);
        self.waiting.push(candidate);
        self.set(id, Standing::Queued);
    }

    /// Records the state of a feature.
    pub(super) fn set(&mut self, id: FeatureId, standing: Standing) {
        self.standings.set(id, standing);
        if standing != Standing::Queued && standing != Standing::Working {
            self.waiting.retain(|candidate| candidate.id != id);
            self.leader = self.leader.filter(|leader| *leader != id);
        }
        self.elect();
    }

    /// Returns whether nothing is under way, and nothing can start.
    pub(super) fn is_idle(&self) -> bool {
        self.standings.is_idle(self.is_closed)
    }

    /// Lets nothing wait any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiting.iter().for_each(|candidate| candidate.ready.notify_one());
    }

    /// Returns the next step of a feature in the line.
    pub(super) fn turn(&mut self, id: FeatureId) -> Turn {
        if let Some(decided) = self.verdicts.remove(&id) {
            return Turn::Decided(Box::new(decided));
        }
        self.elect();
        if self.leader == Some(id) || self.is_closed {
            return Turn::Leads;
        }
        let is_first = self.waiting.first().is_some_and(|first| first.id == id);
        Turn::Waits((is_first && self.leader.is_none()).then(|| self.due_at()))
    }

    /// Returns whether a feature is in the line.
    pub(super) fn has(&self, id: FeatureId) -> bool {
        self.waiting.iter().any(|candidate| candidate.id == id)
    }

    /// Returns the features of the next batch: all in the line. The first merge has one feature
    /// only, whose tests have just passed on the same files.
    pub(super) fn next_batch(&self) -> Vec<Candidate> {
        let count = if self.has_green { self.waiting.len() } else { 1 };
        self.waiting.iter().take(count).cloned().collect()
    }

    /// Decides the merge of a feature.
    pub(super) fn decide(&mut self, id: FeatureId, verdict: MergeVerdict, report: FeatureReport) {
        if let Some(at) = self.waiting.iter().position(|candidate| candidate.id == id) {
            self.waiting.remove(at).ready.notify_one();
        }
        self.has_green |= matches!(verdict, MergeVerdict::Merged);
        self.verdicts.insert(id, (verdict, report));
    }

    /// Returns the verdict of a feature that was merged and does not know yet.
    pub(super) fn take_merged(&mut self, id: FeatureId) -> bool {
        let is_merged = matches!(self.verdicts.get(&id), Some((MergeVerdict::Merged, _)));
        is_merged && self.verdicts.remove(&id).is_some()
    }

    /// Ends a batch that took this time.
    pub(super) fn batch_ended(&mut self, took: Duration) {
        (self.leader, self.since, self.took) = (None, Instant::now(), took);
        // The first of the line watches the time.
        if let Some(first) = self.waiting.first() {
            first.ready.notify_one();
        }
        self.elect();
    }

    /// Lets the first feature of the line lead a batch, if one is due.
    fn elect(&mut self) {
        let Some(first) = self.waiting.first() else { return };
        let is_due = || !self.has_green || self.standings.need_merge() || Instant::now() >= self.due_at();
        if self.leader.is_none() && is_due() {
            self.leader = Some(first.id);
            first.ready.notify_one();
        }
    }

    fn due_at(&self) -> Instant {
        self.since + WAIT_MAX.max(self.took.saturating_mul(SHARE))
    }
}
