//! Streams of single units and events.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use crate::error::{BoxError, Error};
use crate::event::Event;
use crate::pull::Pull;
use crate::splitter::{Splitter, Sse};
use crate::unit::{OwnedUnit, UnitBatch};

/// The units of a [`Pull`], one by one. [`Pull::units`] creates it.
///
/// Each unit keeps its batch alive. Reading batches costs less where a chunk has many units.
pub struct Units<St, S> {
    pull: Pull<St, S>,
    /// The current batch, and the index of its next unit.
    batch: Option<(UnitBatch, usize)>,
}

impl<St, S> Units<St, S> {
    /// Returns the stream of batches, with its counters and its splitter.
    pub fn pull(&self) -> &Pull<St, S> {
        &self.pull
    }

    fn next_ready(&mut self) -> Option<OwnedUnit> {
        let (batch, index) = self.batch.as_mut()?;
        let unit = batch.get(*index).map(|unit| unit.to_owned_unit());
        *index += 1;
        if *index >= batch.len() {
            self.batch = None;
        }
        unit
    }
}

impl<St, S, E> Units<St, S>
where
    St: Stream<Item = Result<Bytes, E>>,
    S: Splitter,
    E: Into<BoxError>,
{
    /// Returns the next unit, or `None` at the end and after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<OwnedUnit, Error>> {
        std::future::poll_fn(|cx| self.poll_unit(cx)).await
    }

    fn poll_unit(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OwnedUnit, Error>>> {
        loop {
            if let Some(unit) = self.next_ready() {
                return Poll::Ready(Some(Ok(unit)));
            }
            match ready!(Pin::new(&mut self.pull).poll_next(cx)) {
                Some(Ok(batch)) => self.batch = Some((batch, 0)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<St, S, E> Stream for Units<St, S>
where
    St: Stream<Item = Result<Bytes, E>>,
    S: Splitter + Unpin,
    E: Into<BoxError>,
{
    type Item = Result<OwnedUnit, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_unit(cx)
    }
}

impl<St, S> fmt::Debug for Units<St, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Units").finish_non_exhaustive()
    }
}

/// The server-sent events of a [`Pull`], one by one. [`Pull::events`] creates it.
#[derive(Debug)]
pub struct Events<St> {
    units: Units<St, Sse>,
}

impl<St, E> Events<St>
where
    St: Stream<Item = Result<Bytes, E>>,
    E: Into<BoxError>,
{
    /// Returns the next event, or `None` at the end and after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the stream of batches, whose splitter knows the last event id and the reconnection
    /// delay.
    pub fn pull(&self) -> &Pull<St, Sse> {
        self.units.pull()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        let unit = ready!(self.units.poll_unit(cx));
        let retry = self.units.pull.splitter().retry();
        Poll::Ready(unit.map(|unit| Ok(Event::of(unit?.get(), retry))))
    }
}

impl<St, E> Stream for Events<St>
where
    St: Stream<Item = Result<Bytes, E>>,
    E: Into<BoxError>,
{
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl<St, S> Pull<St, S> {
    /// Returns the units one by one, as a stream of values that borrow from nothing.
    #[must_use]
    pub fn units(self) -> Units<St, S> {
        Units { pull: self, batch: None }
    }
}

impl<St> Pull<St, Sse> {
    /// Returns the events one by one, as a stream of values that borrow from nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use greenwave_streaming::{Pull, Sse};
    ///
    /// let body: &[u8] = b"event: delta\nid: 1\ndata: Hello\n\n";
    /// let mut events = Pull::read(body, Sse::default()).events();
    /// let event = events.next().await.unwrap()?;
    /// assert_eq!((&*event.event, &*event.id, &*event.data), ("delta", "1", "Hello"));
    /// # Ok::<(), greenwave_streaming::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn events(self) -> Events<St> {
        Events { units: self.units() }
    }
}
