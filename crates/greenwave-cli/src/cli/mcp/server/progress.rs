//! Progress notifications of a call.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Minimum time between two notifications.
const INTERVAL: Duration = Duration::from_millis(100);

/// The numbers of tests or features of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Number of tests or features that have ended.
    pub(super) done: usize,
    /// Number of all tests or features.
    pub(super) total: usize,
    /// Number of tests or features that failed.
    pub(super) failed: usize,
    pub(super) unit: Unit,
}

/// The parts of a run that are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Unit {
    #[default]
    Tests,
    Features,
}

/// Sends the newest progress to the client, which may have asked for that. Dropping it ends the
/// notifications.
pub(super) struct Notifications(Option<JoinHandle<()>>);

impl Notifications {
    /// Starts to send. Without a token, the client does not want notifications.
    pub(super) fn start(
        token: Option<ProgressToken>,
        peer: Peer<RoleServer>,
    ) -> (Self, watch::Sender<Progress>) {
        let (sender, receiver) = watch::channel(Progress::default());
        let task = token.map(|token| tokio::spawn(send_all(receiver, token, peer)));
        (Self(task), sender)
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn send_all(mut receiver: watch::Receiver<Progress>, token: ProgressToken, peer: Peer<RoleServer>) {
    let mut sent = 0;
    while receiver.changed().await.is_ok() {
        let progress = *receiver.borrow_and_update();
        // Each notification must state more progress than the one before.
        if progress.done <= sent {
            continue;
        }
        sent = progress.done;
        let unit = match progress.unit {
            Unit::Tests => "tests",
            Unit::Features => "features",
        };
        let Progress { done, total, failed, .. } = progress;
        let message = format!("{done} of {total} {unit}, {failed} failed");
        let notification = ProgressNotificationParam::new(token.clone(), progress.done as f64)
            .with_total(progress.total as f64)
            .with_message(message);
        // Without a client, the request ends as well.
        if peer.notify_progress(notification).await.is_err() {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
