//! Tests fanout with several subscribers.

use futures_util::{FutureExt, StreamExt};
use greenwave_streaming::{Fanout, Full, SubscriberPolicy};

#[tokio::test]
async fn waiting_subscribers_receive_every_value() {
    let fanout = Fanout::new();
    let all = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 2 });
    let publisher = tokio::spawn({
        let fanout = fanout.clone();
        async move {
            for i in 0..100 {
                fanout.publish(i).await;
            }
        }
    });
    drop(fanout);
    assert!(all.map(|i| i * 2).eq_by(200).await);
    publisher.await.unwrap();
}

/// Returns whether the stream yields the even numbers below `end`.
trait EqBy {
    async fn eq_by(self, end: i32) -> bool;
}

impl<S: futures_util::Stream<Item = i32>> EqBy for S {
    async fn eq_by(self, end: i32) -> bool {
        self.collect::<Vec<_>>().await == (0..end).step_by(2).collect::<Vec<_>>()
    }
}

#[tokio::test]
async fn subscribers_have_their_own_policies_and_counters() {
    let fanout = Fanout::new();
    let mut oldest = fanout.subscribe(SubscriberPolicy::DropOldest { queue_max: 2 });
    let mut newest = fanout.subscribe(SubscriberPolicy::Newest);
    let mut sums = fanout.subscribe(SubscriberPolicy::coalesce(2, |last, value| *last += value));
    for i in 1..=5 {
        fanout.publish(i).await;
    }
    assert_eq!((oldest.try_next(), oldest.try_next(), oldest.try_next()), (Some(4), Some(5), None));
    assert_eq!((newest.try_next(), newest.try_next()), (Some(5), None));
    assert_eq!((sums.try_next(), sums.try_next(), sums.try_next()), (Some(1), Some(2 + 3 + 4 + 5), None));
    assert_eq!((oldest.stats().dropped, oldest.stats().received), (3, 2));
    assert_eq!((newest.stats().dropped, newest.stats().queued_peak), (4, 1));
    assert_eq!((sums.stats().merged, sums.stats().published), (3, 5));
}

#[test]
fn a_full_waiting_subscriber_blocks_publication() {
    let fanout = Fanout::new();
    let mut slow = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 1 });
    let mut quick = fanout.subscribe(SubscriberPolicy::Newest);
    assert_eq!(fanout.try_publish(1), Ok(()));
    assert_eq!(fanout.try_publish(2), Err(Full(2)));
    assert!(fanout.publish(2).now_or_never().is_none());
    assert_eq!(
        (quick.try_next(), quick.try_next()),
        (Some(1), None),
        "no subscriber received the unpublished value"
    );
    assert_eq!(slow.stats().waits, 1);
    assert_eq!(slow.try_next(), Some(1));
    assert!(fanout.publish(3).now_or_never().is_some());
    assert_eq!((slow.try_next(), quick.try_next()), (Some(3), Some(3)));
}

#[tokio::test]
async fn dropping_a_subscriber_unblocks_the_publisher() {
    let fanout = Fanout::new();
    let slow = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 1 });
    fanout.publish(1).await;
    let waiting = tokio::spawn({
        let fanout = fanout.clone();
        async move { fanout.publish(2).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(slow);
    waiting.await.unwrap();
    assert_eq!(fanout.subscribers(), 0);
}

#[tokio::test]
async fn a_merge_that_panics_ends_its_subscription_only() {
    let fanout = Fanout::new();
    let mut broken = fanout.subscribe(SubscriberPolicy::coalesce(1, |_: &mut i32, _| panic!("a bad merge")));
    let mut fine = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 9 });
    for i in 0..3 {
        fanout.publish(i).await;
    }
    assert_eq!((broken.next().await, broken.next().await), (Some(0), None));
    assert_eq!((fine.next().await, fine.next().await, fine.next().await), (Some(0), Some(1), Some(2)));
}

#[tokio::test]
async fn a_merge_that_calls_its_fanout_ends_its_subscription_only() {
    let fanout = Fanout::new();
    let inner = fanout.clone();
    let merge = move |_: &mut i32, value| assert!(inner.try_publish(value).is_ok());
    let mut broken = fanout.subscribe(SubscriberPolicy::coalesce(1, merge));
    let mut fine = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 9 });
    for i in 0..3 {
        fanout.publish(i).await;
    }
    assert_eq!((broken.next().await, broken.next().await), (Some(0), None));
    assert_eq!((fine.next().await, fine.next().await, fine.next().await), (Some(0), Some(1), Some(2)));
}

#[tokio::test]
async fn the_end_follows_the_queued_values() {
    let fanout = Fanout::new();
    let mut subscription = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 4 });
    let end = tokio::spawn(async move {
        let mut values = Vec::new();
        while let Some(value) = subscription.next().await {
            values.push(value);
        }
        values
    });
    tokio::task::yield_now().await;
    fanout.publish("a").await;
    fanout.publish("b").await;
    drop(fanout);
    assert_eq!(end.await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn callbacks_have_their_own_policies_and_counters() {
    let fanout = Fanout::new();
    let (all, newest) = (
        fanout.subscribe(SubscriberPolicy::Wait { queue_max: 2 }),
        fanout.subscribe(SubscriberPolicy::Newest),
    );
    let counters = newest.counters();
    let (sender, received) = std::sync::mpsc::channel();
    let sums = tokio::spawn(all.for_each(move |value: i32| sender.send(value).unwrap()));
    for i in 0..100 {
        fanout.publish(i).await;
    }
    assert_eq!((counters.stats().dropped, counters.stats().queued), (99, 1));
    let mut seen = Vec::new();
    let newest = newest.for_each(|value| seen.push(value));
    drop(fanout);
    assert_eq!(newest.await.unwrap().received, 1);
    assert_eq!(sums.await.unwrap().unwrap().received, 100);
    assert_eq!(seen, [99]);
    assert_eq!(received.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert_eq!(counters.stats().dropped, 99, "counters outlive the subscription");
}

#[tokio::test]
async fn a_panicking_callback_does_not_affect_others() {
    let fanout = Fanout::new();
    let broken = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 1 });
    let mut fine = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 9 });
    let broken = tokio::spawn(broken.for_each(|value| assert!(value < 2, "{value} is too much")));
    for i in 0..5 {
        fanout.publish(i).await;
    }
    let panicked = broken.await.unwrap().unwrap_err();
    assert_eq!((&panicked.message[..], panicked.stats.received), ("2 is too much", 3));
    assert_eq!(panicked.to_string(), "a subscriber panicked after 3 values: 2 is too much");
    for i in 0..5 {
        assert_eq!(fine.next().await, Some(i));
    }
    assert_eq!(fanout.subscribers(), 1);
}

#[test]
fn blocking_callbacks_run_on_their_own_thread() {
    let fanout = Fanout::new();
    let subscription = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 1 });
    let thread = std::thread::spawn(move || {
        let mut sum = 0;
        subscription.for_each_blocking(|value: u64| sum += value).map(|stats| (sum, stats.received))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for i in 1..=1000 {
            fanout.publish(i).await;
        }
    });
    drop(fanout);
    assert_eq!(thread.join().unwrap(), Ok((500_500, 1000)));
}
