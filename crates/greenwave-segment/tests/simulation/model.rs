//! What a log may answer: a history of every change, with the stamp it got and whether it was acknowledged and flushed.

use std::collections::{BTreeMap, HashMap, HashSet};

pub(crate) type Key = Vec<u8>;

/// How a change ended, as far as its caller can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Under way. It may show or not.
    Not,
    /// The caller was told so. It counts.
    Acknowledged,
    /// The caller was told that it had no effect.
    Failed,
}

/// One change of one key.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) ended: Ended,
    /// Known once it is acknowledged.
    pub(crate) stamp: u64,
    pub(crate) process: usize,
    pub(crate) flushed: bool,
    pub(crate) batch: Option<u64>,
    /// When it began and when it was acknowledged, in events of the model.
    pub(crate) began: u64,
    pub(crate) acknowledged: u64,
}

/// What one open log must have seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The newest stamp of each key that it must show, or something newer.
    floors: HashMap<Key, u64>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pub(crate) changes: BTreeMap<Key, Vec<Change>>,
    /// Whether values may vanish.
    pub(crate) may_drop: bool,
    /// Whether clocks are apart by so little that nobody notices, or the file that tells may not be had.
    pub(crate) clocks_are_close: bool,
    pub(crate) out_of_order: Option<String>,
    events: u64,
    batches: u64,
    /// Values that an acknowledged increment has replaced.
    replaced: HashSet<(Key, Option<Vec<u8>>)>,
    /// Whether an increment may have been lost or made without being acknowledged.
    increments_blurred: bool,
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

    /// A hash of what has been acknowledged and flushed.
    pub(crate) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for (key, changes) in &self.changes {
            key.hash(&mut hasher);
            changes.iter().for_each(|c| (c.ended as u8, c.flushed, c.stamp).hash(&mut hasher));
        }
        hasher.finish()
    }

    /// Takes note of a change that begins; returns its number.
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
            ended: Ended::Not,
            stamp: 0,
            process,
            flushed: false,
            batch,
            began,
            acknowledged: 0,
        });
        changes.len() - 1
    }

    pub(crate) fn acknowledge(&mut self, key: &[u8], number: usize, stamp: u64) {
        let acknowledged = self.event();
        self.check_order(key, number, stamp);
        let change = &mut self.changes.get_mut(key).unwrap()[number];
        (change.ended, change.stamp, change.acknowledged) = (Ended::Acknowledged, stamp, acknowledged);
    }

    /// A change has a later stamp than every change of its key that was acknowledged before it began, whatever the clocks say.
    fn check_order(&mut self, key: &[u8], number: usize, stamp: u64) {
        let changes = &self.changes[key];
        let began = changes[number].began;
        let earlier =
            changes.iter().filter(|other| other.ended == Ended::Acknowledged && other.acknowledged < began);
        if let Some(other) = earlier.max_by_key(|other| other.stamp)
            && other.stamp >= stamp
            && !self.clocks_are_close
        {
            let key = String::from_utf8_lossy(key);
            self.out_of_order =
                Some(format!("{key} got stamp {stamp}, after {} had been acknowledged", other.stamp));
        }
    }

    pub(crate) fn fail(&mut self, key: &[u8], number: usize) {
        self.changes.get_mut(key).unwrap()[number].ended = Ended::Failed;
    }

    /// A flush began after these had been acknowledged, and has succeeded.
    pub(crate) fn flushed(&mut self, process: usize, began: u64) {
        for change in self.changes.values_mut().flatten() {
            let covered = change.process == process && change.ended == Ended::Acknowledged;
            change.flushed |= covered && change.acknowledged < began;
        }
    }

    /// What a log that opens or refreshes now must show afterwards.
    pub(crate) fn see(&self, view: &mut View) {
        for (key, changes) in &self.changes {
            if let Some(newest) = newest_acknowledged(changes) {
                let floor = view.floors.entry(key.clone()).or_default();
                *floor = (*floor).max(newest.stamp);
            }
        }
    }

    /// A log shows its own changes at once.
    pub(crate) fn own(&self, view: &mut View, key: &[u8], stamp: u64) {
        let floor = view.floors.entry(key.to_vec()).or_default();
        *floor = (*floor).max(stamp);
    }

    /// Whether a log with this view may give this answer.
    pub(crate) fn check(&self, view: &View, key: &[u8], got: Option<&[u8]>) -> Result<(), String> {
        let floor = view.floors.get(key).copied().unwrap_or(0);
        if got.is_none() && (self.may_drop || floor == 0) {
            return Ok(());
        }
        let none = Vec::new();
        let changes = self.changes.get(key).unwrap_or(&none);
        let allowed = |change: &Change| match change.ended {
            Ended::Failed => false,
            Ended::Not => true,
            // A removal is forgotten by compaction once nothing older is left. A change with an older stamp that was under way
            // meanwhile then shows.
            Ended::Acknowledged => change.stamp >= floor || self.follows_a_removal(changes, change, floor),
        };
        if changes.iter().any(|change| change.value.as_deref() == got && allowed(change)) {
            return Ok(());
        }
        Err(format!(
            "{} is {}, where stamp {floor} or later was expected: {}",
            String::from_utf8_lossy(key),
            shown(got),
            listed(changes)
        ))
    }

    fn follows_a_removal(&self, changes: &[Change], change: &Change, floor: u64) -> bool {
        changes.iter().any(|newest| {
            newest.stamp == floor
                && newest.value.is_none()
                && newest.ended == Ended::Acknowledged
                && newest.began < change.acknowledged
        })
    }

    /// A process was killed, or the power cut. What was under way may come out either way.
    pub(crate) fn lost_power(&mut self) {
        for changes in self.changes.values_mut() {
            for change in changes.iter_mut() {
                if change.ended == Ended::Acknowledged && !change.flushed {
                    // It may be gone, and it may be there.
                    change.ended = Ended::Not;
                }
            }
        }
        self.increments_blurred = true;
    }

    pub(crate) fn blur_increments(&mut self) {
        self.increments_blurred = true;
    }

    /// After all processes have ended and one that opened the log anew has answered: what it says is true from now on, and on the
    /// disk if that is where it was read from.
    pub(crate) fn settle(
        &mut self,
        answers: &BTreeMap<Key, Option<Vec<u8>>>,
        durable: bool,
    ) -> Result<(), String> {
        self.check_batches(answers)?;
        for (key, answer) in answers {
            let now = self.event();
            let changes = self.changes.entry(key.clone()).or_default();
            let flushed = changes.iter().filter(|change| change.flushed).map(|change| change.stamp).max();
            if answer.is_none() && durable {
                // Nothing of it has reached the disk, or its removal has, which compaction may have forgotten since. Whatever
                // shows again is wrong.
                changes.clear();
                continue;
            }
            let shows = |change: &&mut Change| change.value == *answer && change.ended != Ended::Failed;
            let Some(shown) = changes.iter_mut().filter(shows).max_by_key(|change| change.stamp) else {
                match answer {
                    // It has never had a value, or all of it was dropped.
                    None => continue,
                    Some(_) => {
                        return Err(format!("{} has a value that nobody put", String::from_utf8_lossy(key)));
                    }
                }
            };
            let known = shown.stamp > 0;
            if !known {
                // Later than what had been flushed; how much later nobody was told.
                shown.stamp = flushed.unwrap_or(0) + 1;
            }
            (shown.ended, shown.acknowledged) = (Ended::Acknowledged, now);
            shown.flushed |= durable;
            // What is newer and does not show was lost with the power, and must not come back.
            let stamp = shown.stamp;
            let gone = |change: &Change| known && change.stamp > stamp;
            changes.retain(|change| change.ended != Ended::Failed && !gone(change));
            for change in changes.iter_mut() {
                change.batch = None;
                if change.stamp > stamp {
                    // Older than what shows, whose stamp nobody was told.
                    change.ended = Ended::Not;
                }
            }
        }
        self.replaced.clear();
        self.increments_blurred = false;
        Ok(())
    }

    /// All of a batch shows, or none of it.
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
                        && other.ended == Ended::Acknowledged
                        && other.acknowledged < present.began
                        && other.stamp < present.stamp.max(1)
                });
                if !shows(key, change) && (older.is_some() || answer.is_none()) && !self.may_drop {
                    // Something newer may have removed it.
                    let removed_later = answer.is_none()
                        && self.changes[*key].iter().any(|other| {
                            other.value.is_none()
                                && (other.ended == Ended::Not || other.stamp >= change.stamp)
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

    /// An increment has replaced `old`, which no other may have replaced.
    pub(crate) fn incremented(&mut self, key: &[u8], old: Option<Vec<u8>>) -> Result<(), String> {
        if !self.replaced.insert((key.to_vec(), old)) && !self.increments_blurred && !self.may_drop {
            return Err(format!(
                "two increments of {} have replaced the same value",
                String::from_utf8_lossy(key)
            ));
        }
        Ok(())
    }
}

fn newest_acknowledged(changes: &[Change]) -> Option<&Change> {
    let acknowledged = changes.iter().filter(|change| change.ended == Ended::Acknowledged);
    acknowledged.max_by_key(|change| change.stamp)
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
                "\n    {} by {} stamp {} {:?}{}",
                shown(c.value.as_deref()),
                c.process,
                c.stamp,
                c.ended,
                if c.flushed { ", flushed" } else { "" }
            )
        })
        .collect();
    lines.concat()
}
