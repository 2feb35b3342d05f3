//! Decisions of the user that change a run while it lasts.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::plan::FeatureId;

/// The decisions, which the features of the run wait for and look at.
#[derive(Debug)]
pub(crate) struct Steering(watch::Sender<Decisions>);

#[derive(Debug, Default)]
struct Decisions {
    is_paused: bool,
    stopped: BTreeSet<FeatureId>,
    held: BTreeSet<FeatureId>,
}

impl Default for Steering {
    fn default() -> Self {
        Self(watch::Sender::new(Decisions::default()))
    }
}

impl Steering {
    /// Sets whether features begin no further stage.
    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.0.send_modify(|decisions| decisions.is_paused = is_paused);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.0.borrow().is_paused
    }

    /// Ends a feature in this run.
    pub(crate) fn stop(&self, feature: FeatureId) {
        self.0.send_modify(|decisions| {
            decisions.stopped.insert(feature);
        });
    }

    /// Sets whether a feature waits for approval before its merge if the plan does not hold it.
    pub(crate) fn set_held(&self, feature: FeatureId, is_held: bool) {
        self.0.send_modify(|decisions| {
            if is_held {
                decisions.held.insert(feature);
            } else {
                decisions.held.remove(&feature);
            }
        });
    }

    pub(crate) fn is_held(&self, feature: FeatureId) -> bool {
        self.0.borrow().held.contains(&feature)
    }

    /// Waits until the run is not paused, or the feature is stopped.
    pub(crate) async fn resumed(&self, feature: FeatureId) {
        self.wait(|decisions| !decisions.is_paused || decisions.stopped.contains(&feature)).await;
    }

    /// Waits until the feature is stopped.
    pub(crate) async fn stopped(&self, feature: FeatureId) {
        self.wait(|decisions| decisions.stopped.contains(&feature)).await;
    }

    async fn wait(&self, holds: impl FnMut(&Decisions) -> bool) {
        // An error would mean that the sender is gone, which `self` holds.
        let _ = self.0.subscribe().wait_for(holds).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_stop_ends_the_pause_of_its_feature_only() {
        let steering = Steering::default();
        let [one, two] = [0, 1].map(FeatureId::from_index);
        assert!(steering.resumed(one).now_or_never().is_some());
        steering.set_paused(true);
        let (mut waits, mut others) = (Box::pin(steering.resumed(one)), Box::pin(steering.resumed(two)));
        assert!((&mut waits).now_or_never().is_none() && steering.stopped(one).now_or_never().is_none());
        steering.stop(one);
        assert!(waits.now_or_never().is_some() && steering.stopped(one).now_or_never().is_some());
        assert!((&mut others).now_or_never().is_none());
        steering.set_paused(false);
        assert!(others.now_or_never().is_some());
    }
}
