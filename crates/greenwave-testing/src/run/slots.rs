//! Limits the processes of tests that run at once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::boxed::boxed;

/// Mean duration of the latest tests up to which more of them are prepared than can run.
const SHORT: Duration = Duration::from_millis(500);
/// Share of the latest test in the mean, as a divisor.
const WEIGHT: u32 = 8;

/// Limits how many processes of tests run at once.
///
/// A test takes a slot when its process starts, and gives it back at the end of the process. What
/// the runner does before and after takes none. So the slots stay busy while tests are short if
/// more of them are under way than there are slots: [`TestSlots::places`] says how many. Around
/// long tests, that would bring nothing, and the caller would decide too early which test comes
/// next.
#[derive(Debug, Clone)]
pub struct TestSlots(Arc<Slots>);

#[derive(Debug)]
struct Slots {
    free: Arc<Semaphore>,
    count: u32,
    /// Whether more tests are prepared than can run.
    is_ahead: bool,
    /// Mean duration of the latest tests.
    mean: Mutex<Option<Duration>>,
    places: watch::Sender<u32>,
    /// Time that tests have waited for slots.
    waited: Mutex<Duration>,
}

/// A slot that a process uses. Dropping it gives it back.
#[derive(Debug)]
pub struct TestSlot {
    slots: Arc<Slots>,
    since: Instant,
    // `None` if the slots are closed, which they never are.
    _permit: Option<OwnedSemaphorePermit>,
}

impl TestSlots {
    /// Creates this number of slots; 0 counts as 1.
    pub fn new(count: u32) -> Self {
        Self::with(count, true)
    }

    /// Creates slots with as many places, for little memory: each test that is prepared takes some.
    pub fn exact(count: u32) -> Self {
        Self::with(count, false)
    }

    fn with(count: u32, is_ahead: bool) -> Self {
        let count = count.max(1);
        let free = usize::try_from(count).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let (free, places) = (Arc::new(Semaphore::new(free)), watch::Sender::new(count));
        Self(Arc::new(Slots {
            free,
            count,
            is_ahead,
            mean: Mutex::default(),
            places,
            waited: Mutex::default(),
        }))
    }

    /// Waits for a slot, and takes it.
    pub fn take(&self) -> impl Future<Output = TestSlot> + Send + use<> {
        let slots = Arc::clone(&self.0);
        boxed(async move {
            let asked = Instant::now();
            let _permit = Arc::clone(&slots.free).acquire_owned().await.ok();
            let since = Instant::now();
            *slots.waited.lock() += since - asked;
            TestSlot { slots, since, _permit }
        })
    }

    /// Returns how many tests should be under way: one for each slot, and twice as many while tests
    /// are short.
    pub fn places(&self) -> watch::Receiver<u32> {
        self.0.places.subscribe()
    }

    /// Returns how long tests have waited for slots, summed over all of them.
    pub fn waited(&self) -> Duration {
        *self.0.waited.lock()
    }

    /// Returns the maximum number of places.
    pub fn places_max(&self) -> u32 {
        if self.0.is_ahead { self.0.count.saturating_mul(2) } else { self.0.count }
    }
}

impl Drop for TestSlot {
    fn drop(&mut self) {
        let Slots { count, is_ahead, mean, places, .. } = &*self.slots;
        let latest = self.since.elapsed();
        let mut mean = mean.lock();
        let now = mean.map_or(latest, |mean| (mean * (WEIGHT - 1) + latest) / WEIGHT);
        *mean = Some(now);
        let wanted = if *is_ahead && now < SHORT { count.saturating_mul(2) } else { *count };
        places.send_if_modified(|places| std::mem::replace(places, wanted) != wanted);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    async fn hold(slots: &TestSlots, duration: Duration) {
        let _slot = slots.take().await;
        sleep(duration).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_processes_run_than_there_are_slots() {
        let (slots, started) = (TestSlots::new(2), Instant::now());
        let second = Duration::from_secs(1);
        tokio::join!(
            hold(&slots, second),
            hold(&slots, second),
            hold(&slots, second),
            hold(&slots, second),
            hold(&slots, second)
        );
        assert_eq!(started.elapsed(), 3 * second);
        assert_eq!(slots.waited(), 4 * second, "two tests for one second, one for two");
        // A number that no machine has.
        hold(&TestSlots::new(u32::MAX), second).await;
        hold(&TestSlots::new(0), second).await;
    }

    /// A process that is killed gives its slot back too.
    #[tokio::test(start_paused = true)]
    async fn a_dropped_slot_is_free() {
        let slots = TestSlots::new(1);
        let long = Duration::from_secs(3600);
        assert!(tokio::time::timeout(Duration::from_secs(1), hold(&slots, long)).await.is_err());
        // So does one that still waits.
        let held = slots.take().await;
        assert!(tokio::time::timeout(Duration::from_secs(1), slots.take()).await.is_err());
        drop(held);
        drop(slots.take().await);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_more_places_while_tests_are_short() {
        let slots = TestSlots::new(3);
        let places = slots.places();
        assert_eq!(*places.borrow(), 3, "no test has ended yet");
        hold(&slots, Duration::from_millis(50)).await;
        assert_eq!((*places.borrow(), slots.places_max()), (6, 6));
        hold(&slots, Duration::from_secs(60)).await;
        assert_eq!(*places.borrow(), 3);
        let exact = TestSlots::exact(3);
        hold(&exact, Duration::from_millis(50)).await;
        assert_eq!((*exact.places().borrow(), exact.places_max()), (3, 3));
        for _ in 0..60 {
            hold(&slots, Duration::from_millis(50)).await;
        }
        assert_eq!(*places.borrow(), 6);
    }
}
