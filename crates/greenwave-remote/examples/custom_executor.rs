//! An executor of your own, which executes lost actions again.
//!
//! Run it with `cargo run -p greenwave-remote --features conformance --example custom_executor`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use greenwave_remote::{Action, Error, Event, Events, Executor, ExecutorExt, LocalExecutor, Outcome, Tree};

/// Executes actions with another executor, again if they were lost, as often as three times.
#[derive(Debug)]
struct Patient {
    inner: Arc<dyn Executor>,
}

#[async_trait]
impl Executor for Patient {
    async fn submit(&self, action: Action) -> Result<Events, Error> {
        // Checks the action, and starts it at once.
        let first = self.inner.submit(action.clone()).await?;
        let state = (self.inner.clone(), action, first, 2_u32);
        let next = |(inner, action, mut events, left): (Arc<dyn Executor>, Action, Events, u32)| async move {
            let event = events.next().await?;
            if left == 0 || !matches!(event, Event::Finished(Outcome::Lost(_))) {
                return Some((event, (inner, action, events, left)));
            }
            match inner.submit(action.clone()).await {
                Ok(again) => Some((Event::Queued, (inner, action, again, left - 1))),
                Err(_) => Some((event, (inner, action, events, 0))),
            }
        };
        Ok(Box::pin(futures_util::stream::unfold(state, next)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let executor = Patient { inner: Arc::new(LocalExecutor::new(directory.path(), 2)) };
    let tree = Tree::new().with_file("name.txt", "world")?;
    let action = Action::new(["sh", "-c", "echo hello $(cat name.txt)"], tree);
    println!("{:?}", executor.execute(action).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Runs the conformance tests on the executor.
    use super::*;

    struct Directory(tempfile::TempDir);

    impl greenwave_remote::conformance::ExecutorFixture for Directory {
        async fn open(&self) -> Arc<dyn Executor> {
            Arc::new(Patient { inner: Arc::new(LocalExecutor::new(self.0.path(), 2)) })
        }
    }

    greenwave_remote::executor_conformance!(Directory(tempfile::tempdir().unwrap()));
}
