//! What a name may lead to: a history of its changes, with when each was made, was written at the latest, and counts for sure.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A moment: the number of an event of the run.
pub(crate) type Event = u64;
/// One opening of a store.
pub(crate) type Handle = usize;

/// One change of one name.
#[derive(Debug, Clone)]
struct NameChange {
    contents: Option<Bytes>,
    /// It may lead to contents that are gone.
    may_dangle: bool,
    handle: Handle,
    began: Event,
    /// When its caller was told that it counts for this store.
    made: Event,
    /// When it was written at the latest, or it never was.
    latest: Option<Event>,
    /// Since when it counts for all.
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

    /// A store is about to change a name. It may be written from now on.
    pub(crate) fn begin(&mut self, handle: Handle, name: &str, contents: Option<Bytes>, may_dangle: bool) {
        let began = self.event();
        let changes = self.names.entry(name.to_owned()).or_default();
        // What the same store has not written by now, it never will.
        for earlier in changes.iter_mut().filter(|change| change.handle == handle) {
            earlier.latest.get_or_insert(began);
        }
        let made = Event::MAX;
        changes.push(NameChange { contents, may_dangle, handle, began, made, latest: None, flushed: None });
    }

    /// The change that a store began last counts for it.
    pub(crate) fn made(&mut self, handle: Handle, name: &str) {
        let now = self.event();
        let mut changes = self.names.get_mut(name).into_iter().flatten().rev();
        if let Some(change) = changes.find(|change| change.handle == handle) {
            change.made = now;
        }
    }

    /// A flush that began then has succeeded.
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

    /// A store has ended in whatever way: it writes no more.
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

    /// What a store has put without a name may go from now on.
    pub(crate) fn swept(&mut self, handle: Handle) {
        self.unnamed.retain(|unnamed| unnamed.handle != handle);
    }

    /// Contents that a store has to find without a name: its own, and what others have flushed.
    pub(crate) fn unnamed(&self, reader: Handle) -> Vec<Bytes> {
        let seen = self.unnamed.iter().filter(|unnamed| unnamed.handle == reader || unnamed.flushed);
        seen.map(|unnamed| unnamed.contents.clone()).collect()
    }

    /// Whether contents are still to be found without a name.
    pub(crate) fn is_wanted(&self, contents: &Bytes) -> bool {
        self.unnamed.iter().any(|unnamed| unnamed.contents == contents)
    }

    /// Whether a store that began to read then may find this under a name.
    pub(crate) fn check(
        &self,
        reader: Handle,
        name: &str,
        got: Option<&Bytes>,
        began: Event,
    ) -> Result<(), String> {
        let none = Vec::new();
        let changes = self.names.get(name).unwrap_or(&none);
        // When a change surely counts for the reader.
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

    /// What names lead to after a power cut is all that there is from then on.
    pub(crate) fn settle(&mut self, answers: &BTreeMap<String, Option<Bytes>>) {
        let now = self.event();
        for (name, contents) in answers {
            // A name that leads to contents that are gone leads to them again when they are put again.
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
