//! Model of a log: the history of all changes with their timestamps and outcomes, which determines
//! the permitted results of a read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

pub(crate) type Key = Vec<u8>;

/// Outcome of a change, as far as its caller can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In progress or interrupted. It may be visible or not.
    Pending,
    /// Acknowledged to the caller. It counts.
    Acknowledged,
    /// Reported to the caller as failed. It must not be visible.
    Failed,
}

/// A change of a key.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) outcome: Outcome,
    /// Timestamp of its last record, once acknowledged.
    pub(crate) timestamp: u64,
    /// Timestamp of its first record. It is earlier if the record was written again.
    pub(crate) first_timestamp: u64,
    pub(crate) process: usize,
    pub(crate) flushed: bool,
    pub(crate) batch: Option<u64>,
    /// Start and acknowledgement, as event numbers of the model.
    pub(crate) began: u64,
    pub(crate) acknowledged: u64,
}

/// Changes that an open log must show.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Earliest permitted timestamp by key.
    timestamps_min: HashMap<Key, u64>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pub(crate) changes: BTreeMap<Key, Vec<Change>>,
    /// Whether values may be dropped.
    pub(crate) may_drop: bool,
    /// Whether the order of writes is not guaranteed: clocks differ by less than the shared clock
    /// resolves, or its file may be unavailable.
    pub(crate) clocks_are_close: bool,
    /// Whether the file of the shared clock may be unavailable.
    pub(crate) clock_may_fail: bool,
    pub(crate) out_of_order: Option<String>,
    events: u64,
    batches: u64,
    /// Values that acknowledged increments have replaced.
    replaced: HashSet<(Key, Option<Vec<u8>>)>,
    /// Whether an increment may have been lost, or made without being acknowledged.
    increments_uncertain: bool,
}

impl Model {
    pub(crate) fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    pub(crate) fn new_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// Returns a hash of all acknowledged and flushed changes.
    pub(crate) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for (key, changes) in &self.changes {
            key.hash(&mut hasher);
            changes.iter().for_each(|c| (c.outcome as u8, c.flushed, c.timestamp).hash(&mut hasher));
        }
        hasher.finish()
    }

    /// Records the start of a change; returns its number.
    pub(crate) fn begin(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        process: usize,
        batch: Option<u64>,
    ) -> usize {
        let began = self.event();
        let changes = self.changes.entry(key.to_vec()).or_default();
        changes.push(Change {
            value: value.map(<[u8]>::to_vec),
            outcome: Outcome::Pending,
            timestamp: 0,
            first_timestamp: 0,
            process,
            flushed: false,
            batch,
            began,
            acknowledged: 0,
        });
        changes.len() - 1
    }

    pub(crate) fn acknowledge(&mut self, key: &[u8], number: usize, timestamps: RangeInclusive<u64>) {
        let acknowledged = self.event();
        let (first_timestamp, timestamp) = timestamps.into_inner();
        self.check_order(key, number, timestamp);
        let change = &mut self.changes.get_mut(key).unwrap()[number];
        (change.outcome, change.acknowledged) = (Outcome::Acknowledged, acknowledged);
        (change.first_timestamp, change.timestamp) = (first_timestamp, timestamp);
    }

    /// Checks that a change has a later timestamp than every change of its key acknowledged before
    /// it began.
    fn check_order(&mut self, key: &[u8], number: usize, timestamp: u64) {
        let changes = &self.changes[key];
        let began = changes[number].began;
        let earlier = changes
            .iter()
            .filter(|other| other.outcome == Outcome::Acknowledged && other.acknowledged < began);
        if let Some(other) = earlier.max_by_key(|other| other.timestamp)
            && other.timestamp >= timestamp
            && !self.clocks_are_close
        {
            let key = String::from_utf8_lossy(key);
            self.out_of_order = Some(format!(
                "{key} got timestamp {timestamp}, after {} had been acknowledged: {}",
                other.timestamp,
                listed(changes)
            ));
        }
    }

    pub(crate) fn fail(&mut self, key: &[u8], number: usize) {
        self.changes.get_mut(key).unwrap()[number].outcome = Outcome::Failed;
    }

    /// Records a successful flush that began after the given event.
    pub(crate) fn flushed(&mut self, process: usize, began: u64) {
        for change in self.changes.values_mut().flatten() {
            let covered = change.process == process && change.outcome == Outcome::Acknowledged;
            change.flushed |= covered && change.acknowledged < began;
        }
    }

    /// Requires a log that opens or refreshes now to show every acknowledged change.
    pub(crate) fn require_acknowledged(&self, view: &mut View) {
        for (key, changes) in &self.changes {
            if let Some(newest) = newest_acknowledged(changes) {
                let timestamp_min = view.timestamps_min.entry(key.clone()).or_default();
                *timestamp_min = (*timestamp_min).max(newest.timestamp);
            }
        }
    }

    /// Requires a log to show its own change.
    pub(crate) fn require_own(&self, view: &mut View, key: &[u8], timestamp: u64) {
        let timestamp_min = view.timestamps_min.entry(key.to_vec()).or_default();
        *timestamp_min = (*timestamp_min).max(timestamp);
    }

    /// Checks the result of a read by a log with this view.
    pub(crate) fn check(&self, view: &View, key: &[u8], got: Option<&[u8]>) -> Result<(), String> {
        let timestamp_min = view.timestamps_min.get(key).copied().unwrap_or(0);
        if got.is_none() && (self.may_drop || timestamp_min == 0) {
            return Ok(());
        }
        let none = Vec::new();
        let changes = self.changes.get(key).unwrap_or(&none);
        let allowed = |change: &Change| match change.outcome {
            Outcome::Failed => false,
            Outcome::Pending => true,
            Outcome::Acknowledged => {
                change.timestamp >= timestamp_min || self.follows_a_removal(changes, change, timestamp_min)
            }
        };
        if changes.iter().any(|change| change.value.as_deref() == got && allowed(change)) {
            return Ok(());
        }
        Err(format!(
            "{} is {}, where timestamp {timestamp_min} or later was expected: {}",
            String::from_utf8_lossy(key),
            shown(got),
            listed(changes)
        ))
    }

    /// Returns whether `change` was in progress while the newest change was made, which may have
    /// been forgotten since. Without the shared clock, `change` may then become visible.
    fn follows_a_removal(&self, changes: &[Change], change: &Change, timestamp_min: u64) -> bool {
        self.clock_may_fail
            && changes.iter().any(|newest| {
                newest.timestamp == timestamp_min
                    && (newest.value.is_none() || self.may_drop)
                    && newest.outcome == Outcome::Acknowledged
                    && newest.began < change.acknowledged
            })
    }

    /// Records a kill or a power cut. Changes in progress may be visible or not.
    pub(crate) fn record_crash(&mut self) {
        for changes in self.changes.values_mut() {
            for change in changes.iter_mut() {
                if change.outcome == Outcome::Acknowledged && !change.flushed {
                    // The change may be lost or not.
                    change.outcome = Outcome::Pending;
                }
            }
        }
        self.increments_uncertain = true;
    }

    pub(crate) fn mark_increments_uncertain(&mut self) {
        self.increments_uncertain = true;
    }

    /// Records the values of a log opened after all processes have ended. They remain visible from
    /// now on, and are durable if they were read after a power cut.
    pub(crate) fn record_values(
        &mut self,
        answers: &BTreeMap<Key, Option<Vec<u8>>>,
        durable: bool,
    ) -> Result<(), String> {
        self.check_batches(answers)?;
        for (key, answer) in answers {
            let now = self.event();
            let changes = self.changes.entry(key.clone()).or_default();
            // The visible change is at least as new, although its exact timestamp may be unknown.
            let newest = newest_acknowledged(changes).map_or(0, |change| change.timestamp);
            if answer.is_none() && durable {
                // Either no change reached the disk, or the removal did and compaction may have
                // forgotten it since. No older value may reappear.
                changes.clear();
                continue;
            }
            let shows = |change: &&mut Change| change.value == *answer && change.outcome != Outcome::Failed;
            let order = |change: &&mut Change| match change.timestamp {
                0 => (newest, false),
                timestamp => (timestamp, true),
            };
            let Some(shown) = changes.iter_mut().filter(shows).max_by_key(order) else {
                match answer {
                    // The key never had a value, or its values were dropped.
                    None => continue,
                    Some(_) => {
                        return Err(format!(
                            "{} has a value that was never put",
                            String::from_utf8_lossy(key)
                        ));
                    }
                }
            };
            let has_timestamp = shown.timestamp > 0;
            let timestamp = shown.timestamp;
            if !has_timestamp {
                shown.timestamp = newest + 1;
            } else if shown.outcome == Outcome::Pending {
                // A power cut may have taken away all its records but the first.
                shown.timestamp = shown.first_timestamp.max(newest + 1).min(timestamp);
            }
            (shown.outcome, shown.acknowledged) = (Outcome::Acknowledged, now);
            shown.flushed |= durable;
            // Newer changes were lost in the power cut, and must not reappear.
            let timestamp_min = shown.timestamp;
            let gone = |change: &Change| has_timestamp && change.timestamp > timestamp;
            changes.retain(|change| change.outcome != Outcome::Failed && !gone(change));
            for change in changes.iter_mut() {
                change.batch = None;
                if change.timestamp > timestamp_min {
                    // Older than the visible change, whose exact timestamp is unknown.
                    change.outcome = Outcome::Pending;
                }
            }
        }
        self.replaced.clear();
        self.increments_uncertain = false;
        Ok(())
    }

    /// Checks that all changes of a batch are visible or none.
    fn check_batches(&self, answers: &BTreeMap<Key, Option<Vec<u8>>>) -> Result<(), String> {
        let mut batches: BTreeMap<u64, Vec<(&Key, &Change)>> = BTreeMap::new();
        for (key, changes) in &self.changes {
            for change in changes.iter().filter(|change| change.batch.is_some()) {
                batches.entry(change.batch.unwrap()).or_default().push((key, change));
            }
        }
        for (batch, parts) in batches {
            let shows = |key: &Key, change: &Change| {
                change.value.is_some() && answers.get(key) == Some(&change.value)
            };
            let Some((_, present)) = parts.iter().find(|(key, change)| shows(key, change)) else { continue };
            for (key, change) in &parts {
                let answer = answers.get(*key).cloned().flatten();
                let older = self.changes[*key].iter().find(|other| {
                    other.value == answer
                        && other.outcome == Outcome::Acknowledged
                        && other.acknowledged < present.began
                        && other.timestamp < present.timestamp.max(1)
                });
                if !shows(key, change) && (older.is_some() || answer.is_none()) && !self.may_drop {
                    // A newer change may have removed it, or the first record of the change, which
                    // is the only one that a power cut has left.
                    let removed_later = answer.is_none()
                        && self.changes[*key].iter().any(|other| {
                            other.value.is_none()
                                && (other.outcome == Outcome::Pending
                                    || other.timestamp >= change.first_timestamp)
                        });
                    if !removed_later {
                        return Err(format!(
                            "batch {batch} shows in part: {} is {}",
                            String::from_utf8_lossy(key),
                            shown(answer.as_deref())
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Records an increment, which must be the only one to replace `old`.
    pub(crate) fn incremented(&mut self, key: &[u8], old: Option<Vec<u8>>) -> Result<(), String> {
        if !self.replaced.insert((key.to_vec(), old)) && !self.increments_uncertain && !self.may_drop {
            return Err(format!(
                "two increments of {} have replaced the same value",
                String::from_utf8_lossy(key)
            ));
        }
        Ok(())
    }
}

fn newest_acknowledged(changes: &[Change]) -> Option<&Change> {
    let acknowledged = changes.iter().filter(|change| change.outcome == Outcome::Acknowledged);
    acknowledged.max_by_key(|change| change.timestamp)
}

fn shown(value: Option<&[u8]>) -> String {
    value.map_or("absent".into(), |value| {
        let head: Vec<String> = value.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{} bytes {}", value.len(), head.concat())
    })
}

fn listed(changes: &[Change]) -> String {
    let lines: Vec<String> = changes
        .iter()
        .rev()
        .take(6)
        .map(|c| {
            format!(
                "\n    {} by {} timestamp {} {:?}{}",
                shown(c.value.as_deref()),
                c.process,
                c.timestamp,
                c.outcome,
                if c.flushed { ", flushed" } else { "" }
            )
        })
        .collect();
    lines.concat()
}

#[test]
fn a_value_under_an_unflushed_one_may_reappear_after_a_power_cut() {
    for acknowledged in [false, true] {
        let mut model = Model::default();
        let (key, old, new) = (b"key".to_vec(), Some(b"old".to_vec()), Some(b"new".to_vec()));
        let number = model.begin(&key, old.as_deref(), 0, None);
        model.acknowledge(&key, number, 3000..=3000);
        let number = model.begin(&key, new.as_deref(), 0, None);
        if acknowledged {
            model.acknowledge(&key, number, 4000..=4000);
        }
        for _ in 0..2 {
            model.record_values(&BTreeMap::from([(key.clone(), new.clone())]), false).unwrap();
        }
        let check = |model: &Model, value: &Option<Vec<u8>>| {
            let mut view = View::default();
            model.require_acknowledged(&mut view);
            model.check(&view, &key, value.as_deref())
        };
        check(&model, &new).unwrap();
        check(&model, &old).unwrap_err();
        model.record_crash();
        check(&model, &old).unwrap();
    }
}

#[test]
fn an_unfinished_removal_is_not_mistaken_for_an_earlier_one() {
    let mut model = Model::default();
    let (key, value) = (b"key".to_vec(), Some(b"value".to_vec()));
    let number = model.begin(&key, None, 0, None);
    model.acknowledge(&key, number, 3000..=3000);
    let number = model.begin(&key, value.as_deref(), 0, None);
    model.acknowledge(&key, number, 4000..=4000);
    model.begin(&key, None, 0, None);
    model.record_values(&BTreeMap::from([(key.clone(), None)]), false).unwrap();
    model.record_crash();
    model.check(&View::default(), &key, value.as_deref()).unwrap();
}

#[test]
fn a_power_cut_may_leave_only_the_first_record_of_a_change() {
    let mut model = Model::default();
    let (key, value) = (b"key".to_vec(), Some(b"value".to_vec()));
    let number = model.begin(&key, value.as_deref(), 0, None);
    model.acknowledge(&key, number, 3000..=5000);
    model.record_crash();
    model.record_values(&BTreeMap::from([(key.clone(), value.clone())]), true).unwrap();
    for (timestamp, is_late) in [(2000, true), (4000, false)] {
        let number = model.begin(&key, None, 0, None);
        model.check_order(&key, number, timestamp);
        assert_eq!(model.out_of_order.take().is_some(), is_late, "{timestamp}");
    }
}
