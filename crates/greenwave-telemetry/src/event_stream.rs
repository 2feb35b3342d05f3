//! Sends the events of a feed to one reader, as [server-sent events][html].
//!
//! [html]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::EventFeed;
use crate::limits::LAST_RESPONSE_AGE;

/// Size of the batches that are sent, in bytes. A slow reader holds two of them.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Time without events after which a comment is sent, so that a broken connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// First lines of a stream: the reader waits this long before it connects again, in milliseconds.
const RETRY: &str = "retry: 500\n\n";

/// The body of a response that ends with the feed.
#[derive(Debug)]
pub(crate) struct EventStream {
    batches: mpsc::Receiver<Bytes>,
}

impl EventStream {
    /// Opens a stream that continues after the event with an id. Without one, and if the event is
    /// one of another feed, it begins with an event `reset` and all stored events. The stream ends
    /// in time for a connection that was opened at `opened`, for which it may not be the first
    /// response. The reader connects again and continues where it was.
    pub(crate) fn open(feed: EventFeed, last_id: Option<&str>, opened: Instant) -> Self {
        // One batch waits while another is sent.
        let (sender, batches) = mpsc::channel(1);
        let position = last_id.and_then(|id| feed.position(id));
        tokio::spawn(async move {
            let _closed = send(&feed, position, opened + LAST_RESPONSE_AGE, &sender).await;
        });
        Self { batches }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.batches.poll_recv(context).map(|batch| batch.map(|batch| Ok(Frame::data(batch))))
    }
}

/// Sends the events of a feed until it ends, or until this time.
///
/// # Errors
/// If the reader has closed the connection.
async fn send(
    feed: &EventFeed,
    position: Option<u64>,
    end: Instant,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let mut changes = feed.changes();
    let mut head = RETRY.to_owned();
    if position.is_none() {
        head.push_str("event: reset\ndata: {}\n\n");
    }
    sender.send(head.into()).await?;
    let mut position = position.unwrap_or(0);
    loop {
        // Read before the events, so that those before the end are seen.
        let newest = *changes.borrow_and_update();
        let batch = feed.after(position, BATCH_BYTES_MAX);
        if batch.has_gap {
            sender.send(Bytes::from_static(b"event: gap\ndata: {}\n\n")).await?;
        }
        if !batch.frames.is_empty() {
            position = batch.position;
            sender.send(batch.frames.into()).await?;
            // Events may arrive indefinitely. Those before the end of the feed are all sent.
            if Instant::now() < end || EventFeed::is_end(newest) {
                continue;
            }
            return Ok(());
        }
        if EventFeed::is_end(newest) || Instant::now() >= end {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = sleep(KEEP_ALIVE) => sender.send(Bytes::from_static(b": \n\n")).await?,
            () = sleep_until(end) => return Ok(()),
            () = sender.closed() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_in_time_although_events_do_not() {
        let feed = EventFeed::new();
        let publisher = feed.clone();
        tokio::spawn(async move {
            loop {
                publisher.publish("1");
                sleep(Duration::from_millis(10)).await;
            }
        });
        let started = Instant::now();
        // The connection has been used before.
        sleep(Duration::from_secs(20)).await;
        let mut stream = EventStream::open(feed, None, started);
        while let Some(batch) = stream.batches.recv().await {
            assert!(!batch.is_empty());
            // More events arrive while a batch is sent.
            sleep(Duration::from_millis(20)).await;
        }
        let lasted = started.elapsed();
        assert!(
            lasted >= LAST_RESPONSE_AGE && lasted < LAST_RESPONSE_AGE + Duration::from_secs(1),
            "{lasted:?}"
        );
    }
}
