//! Makes the attempts of a call on tokio.

use tokio::time::Instant;

use crate::retry::Retry;
use crate::retryability::{RetryError, Retryability};

impl Retry {
    /// Makes attempts, numbered from 1, until one succeeds or the policy gives up. Dropping the
    /// future cancels the call. Needs tokio's timer.
    ///
    /// ```
    /// # use greenwave_retry::{Retry, Retryability};
    /// # let mut runtime = tokio::runtime::Builder::new_current_thread();
    /// # let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    /// # runtime.block_on(async {
    /// let call = async |attempt| if attempt < 3 { Err("busy") } else { Ok(attempt) };
    /// let outcome = Retry::default().run(|_: &&str| Retryability::Transient, call).await;
    /// assert_eq!(outcome.unwrap(), 3);
    /// # });
    /// ```
    ///
    /// # Errors
    /// Returns the error of the last attempt.
    pub async fn run<T, E, Fut>(
        &self,
        mut classify: impl FnMut(&E) -> Retryability,
        // Not `AsyncFnMut`, whose futures cannot be required to be `Send`: the run could not be
        // spawned.
        mut attempt: impl FnMut(usize) -> Fut,
    ) -> Result<T, RetryError<E>>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        let started = Instant::now();
        let mut attempts = self.attempts();
        loop {
            let number = attempts.failed() + 1;
            let error = match attempt(number).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match attempts.next_delay(classify(&error), started.elapsed()) {
                Ok(delay) => {
                    tracing::debug!(attempts = number, ?delay, "trying again");
                    tokio::time::sleep(delay).await;
                }
                Err(reason) => return Err(RetryError { error, attempts: number, reason }),
            }
        }
    }
}
