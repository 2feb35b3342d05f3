//! Readers as streams of chunks.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use crate::pull::Pull;
use crate::splitter::Splitter;

/// Size of the blocks of memory that a reader fills, in bytes.
const BLOCK_BYTES: usize = 16 << 10;
/// Minimum room in a block. With less, another block is begun.
const ROOM_BYTES_MIN: usize = 2 << 10;

/// The bytes of a reader, such as the output of a child process, as a stream of chunks. Each chunk
/// is the result of one read.
///
/// An interrupted read is repeated; any other error ends the stream.
pub struct ReadChunks<R> {
    /// `None` once the reader has ended.
    reader: Option<Pin<Box<R>>>,
    block: BytesMut,
}

impl<R: AsyncRead> ReadChunks<R> {
    /// Creates the stream. Reads nothing yet.
    #[must_use]
    pub fn new(reader: R) -> Self {
        Self { reader: Some(Box::pin(reader)), block: BytesMut::new() }
    }
}

impl<R: AsyncRead> Stream for ReadChunks<R> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.get_mut();
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        if this.block.len() < ROOM_BYTES_MIN {
            this.block = BytesMut::zeroed(BLOCK_BYTES);
        }
        loop {
            let mut room = ReadBuf::new(&mut this.block);
            match ready!(reader.as_mut().poll_read(cx, &mut room)) {
                Ok(()) => {
                    let read = room.filled().len();
                    if read == 0 {
                        this.reader = None;
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(this.block.split_to(read).freeze())));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    this.reader = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl<R> fmt::Debug for ReadChunks<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadChunks").field("has_ended", &self.reader.is_none()).finish_non_exhaustive()
    }
}

impl<R: AsyncRead, S: Splitter> Pull<ReadChunks<R>, S> {
    /// Creates a stream that reads `reader` through `splitter`, without limits.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use greenwave_streaming::{Lines, Pull};
    ///
    /// let reader: &[u8] = b"one\ntwo\n"; // or the output of a child process, a file, a socket
    /// let mut pull = Pull::read(reader, Lines::default());
    /// let batch = pull.next().await.unwrap()?;
    /// assert_eq!(batch.get(1).unwrap().text()?, "two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn read(reader: R, splitter: S) -> Self {
        Self::new(ReadChunks::new(reader), splitter)
    }
}
