//! Lets an agent run the tests of its request while it works.

use tokio::sync::{mpsc, oneshot};

/// Runs the tests of a request for its agent. Clones send to the same [`TestCalls`].
#[derive(Debug, Clone)]
pub struct Tester(mpsc::Sender<oneshot::Sender<String>>);

/// Receives the calls of a [`Tester`], one at a time.
#[derive(Debug)]
pub struct TestCalls(mpsc::Receiver<oneshot::Sender<String>>);

impl Tester {
    /// Creates a tester and the receiver of its calls.
    #[must_use]
    pub fn new() -> (Self, TestCalls) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), TestCalls(receiver))
    }

    /// Runs the tests on the files as they are, and returns their result as text for the agent.
    /// `None` if the receiver is gone.
    pub async fn run(&self) -> Option<String> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        receiver.await.ok()
    }
}

impl PartialEq for Tester {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Tester {}

impl TestCalls {
    /// Waits for the next call, which is answered through the sender. Returns `None` once all
    /// testers are gone. Cancel safe.
    pub async fn next(&mut self) -> Option<oneshot::Sender<String>> {
        self.0.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_answered_until_the_receiver_is_gone() {
        let (tester, mut calls) = Tester::new();
        let answered = tokio::spawn(async move {
            calls.next().await.unwrap().send("passed".to_owned()).unwrap();
            // This call is dropped without an answer, and then the receiver.
            calls.next().await.unwrap();
        });
        assert_eq!(tester.run().await.as_deref(), Some("passed"));
        assert_eq!(tester.run().await, None);
        answered.await.unwrap();
        assert_eq!(tester.run().await, None);
        let (other, mut calls) = Tester::new();
        assert!(tester == tester.clone() && tester != other);
        drop(other);
        assert!(calls.next().await.is_none());
    }
}
