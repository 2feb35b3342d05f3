//! A model of the contents that each name may have: the history of its changes, with the times at
//! which each was made, written and guaranteed to be visible.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Time, as the number of an event of the run.
pub(crate) type Event = u64;
/// Identifies an opened store.
pub(crate) type Handle = usize;

/// A change of a name.
#[derive(Debug, Clone)]
struct NameChange {
    contents: Option<Bytes>,
    /// Whether the contents may be missing.
    may_dangle: bool,
    handle: Handle,
    began: Event,
    /// Time at which the call returned, after which this store must see the change.
    made: Event,
    /// Latest time at which the change may have been written, or `None` if it was never written.
    latest: Option<Event>,
    /// Time from which all stores must see the change.
    flushed: Option<Event>,
}

/// Contents that a store has put without a name.
#[derive(Debug, Clone)]
struct Unnamed {
    handle: Handle,
    contents: Bytes,
    made: Event,
    flushed: bool,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    names: BTreeMap<String, Vec<NameChange>>,
    unnamed: Vec<Unnamed>,
    events: Event,
    handles: Handle,
}

impl Model {
    pub(crate) fn event(&mut self) -> Event {
        self.events += 1;
        self.events
    }

    pub(crate) fn handle(&mut self) -> Handle {
        self.handles += 1;
        self.handles
    }

    /// Starts a change of a name. It may be written from now on.
    pub(crate) fn begin(&mut self, handle: Handle, name: &str, contents: Option<Bytes>, may_dangle: bool) {
        let began = self.event();
        let changes = self.names.entry(name.to_owned()).or_default();
        // Earlier unwritten changes of the same store will never be written.
        for earlier in changes.iter_mut().filter(|change| change.handle == handle) {
            earlier.latest.get_or_insert(began);
        }
        let made = Event::MAX;
        changes.push(NameChange { contents, may_dangle, handle, began, made, latest: None, flushed: None });
    }

    /// Records that the last change of a store has returned.
    pub(crate) fn made(&mut self, handle: Handle, name: &str) {
        let now = self.event();
        let mut changes = self.names.get_mut(name).into_iter().flatten().rev();
        if let Some(change) = changes.find(|change| change.handle == handle) {
            change.made = now;
        }
    }

    /// Records the success of a flush that began at `began`.
    pub(crate) fn flushed(&mut self, handle: Handle, began: Event) {
        let now = self.event();
        for change in self.names.values_mut().flatten() {
            if change.handle == handle && change.latest.is_none() && change.made < began {
                (change.latest, change.flushed) = (Some(now), Some(now));
            }
        }
        for unnamed in self.unnamed.iter_mut().filter(|unnamed| unnamed.handle == handle) {
            unnamed.flushed |= unnamed.made < began;
        }
    }

    /// Records that a store has ended, normally or not, and writes no more.
    pub(crate) fn ended(&mut self, handle: Handle) {
        let now = self.event();
        for change in self.names.values_mut().flatten().filter(|change| change.handle == handle) {
            change.latest.get_or_insert(now);
        }
        self.swept(handle);
    }

    pub(crate) fn all_ended(&mut self) {
        for handle in 0..=self.handles {
            self.ended(handle);
        }
    }

    pub(crate) fn put_unnamed(&mut self, handle: Handle, contents: Bytes) {
        let made = self.event();
        self.unnamed.push(Unnamed { handle, contents, made, flushed: false });
    }

    /// Records that the unnamed contents of a store may be removed from now on.
    pub(crate) fn swept(&mut self, handle: Handle) {
        self.unnamed.retain(|unnamed| unnamed.handle != handle);
    }

    /// Returns the unnamed contents that a store must find: its own, and flushed ones of other
    /// stores.
    pub(crate) fn unnamed(&self, reader: Handle) -> Vec<Bytes> {
        let seen = self.unnamed.iter().filter(|unnamed| unnamed.handle == reader || unnamed.flushed);
        seen.map(|unnamed| unnamed.contents.clone()).collect()
    }

    /// Returns whether contents must still be found without a name.
    pub(crate) fn is_wanted(&self, contents: &Bytes) -> bool {
        self.unnamed.iter().any(|unnamed| unnamed.contents == contents)
    }

    /// Returns whether a reader that started at `began` may find these contents under a name.
    pub(crate) fn check(
        &self,
        reader: Handle,
        name: &str,
        got: Option<&Bytes>,
        began: Event,
    ) -> Result<(), String> {
        let none = Vec::new();
        let changes = self.names.get(name).unwrap_or(&none);
        // Returns the time from which the reader must see a change.
        let counts = |change: &NameChange| {
            change.flushed.is_some_and(|at| at <= began) || change.handle == reader && change.made <= began
        };
        let over = |latest: Option<Event>| {
            latest.is_some_and(|latest| changes.iter().any(|other| counts(other) && latest < other.began))
        };
        let fits =
            |change: &NameChange| change.contents.as_ref() == got || change.may_dangle && got.is_none();
        if changes.iter().any(|change| fits(change) && !over(change.latest))
            || got.is_none() && !over(Some(0))
        {
            return Ok(());
        }
        let listed: Vec<String> =
            changes.iter().rev().take(8).map(|change| format!("\n    {}", shown(change))).collect();
        Err(format!("{name} leads to {}, read from {began} on by {reader}: {}", text(got), listed.concat()))
    }

    /// Records the state after a power failure, which is the only possible one from then on.
    pub(crate) fn settle(&mut self, answers: &BTreeMap<String, Option<Bytes>>) {
        let now = self.event();
        for (name, contents) in answers {
            // If a name refers to missing contents, putting these again restores the name.
            if self.names.get(name).is_some_and(|changes| changes.iter().any(|change| change.may_dangle)) {
                continue;
            }
            let change = NameChange {
                contents: contents.clone(),
                may_dangle: false,
                handle: 0,
                began: now,
                made: now,
                latest: Some(now),
                flushed: Some(now),
            };
            self.names.insert(name.clone(), vec![change]);
        }
    }
}

fn text(contents: Option<&Bytes>) -> String {
    contents.map_or("nothing".into(), |contents| {
        let head: Vec<String> = contents.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{} bytes {}", contents.len(), head.concat())
    })
}

fn shown(change: &NameChange) -> String {
    let NameChange { handle, began, made, latest, flushed, .. } = change;
    let contents = text(change.contents.as_ref());
    format!("{contents} by {handle}: began {began}, made {made}, latest {latest:?}, flushed {flushed:?}")
}
