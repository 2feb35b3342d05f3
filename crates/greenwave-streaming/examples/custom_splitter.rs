//! A custom splitter: frames with a four-byte big-endian length prefix. Run its conformance suite
//! with `cargo test -p greenwave-streaming --example custom_splitter --features conformance`.

use greenwave_streaming::{BufferedSplitter, Cut, Cuts, SplitError, Splitter, UnitKind};

/// A custom unit kind.
const FRAME: UnitKind = UnitKind::Other(1);
const HEADER_BYTES: usize = 4;

/// Splits a stream into length-prefixed frames.
#[derive(Debug)]
struct Framed {
    unit_bytes_max: usize,
}

impl Framed {
    /// Returns the length of the frame at `start` once its header is complete.
    fn length(&self, window: &[u8], start: usize) -> Result<Option<usize>, SplitError> {
        let Some(header) = window[start..].first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        if length > self.unit_bytes_max {
            return Err(SplitError::too_long(start, self.unit_bytes_max));
        }
        Ok(Some(length))
    }
}

impl Splitter for Framed {
    fn scan(&mut self, window: &[u8], _fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        while let Some(length) = self.length(window, start)? {
            let body = start + HEADER_BYTES..start + HEADER_BYTES + length;
            if body.end > window.len() {
                break;
            }
            start = body.end;
            out.push(Cut::new(FRAME, body));
        }
        Ok(start)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        if !window.is_empty() {
            out.push(Cut::new(FRAME, HEADER_BYTES.min(window.len())..window.len()).incomplete());
        }
        Ok(())
    }
}

fn main() -> Result<(), greenwave_streaming::Error> {
    let mut splitting = BufferedSplitter::new(Framed { unit_bytes_max: 1024 });
    for chunk in [b"\0\0".as_slice(), b"\0\x05hel", b"lo\0\0\0\x05world"] {
        let batch = splitting.feed(bytes::Bytes::from_static(chunk))?;
        assert_eq!(batch.map_or(0, |batch| batch.len()), if chunk.starts_with(b"lo") { 2 } else { 0 });
    }
    splitting.finish().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::Framed;

    greenwave_streaming::splitter_conformance! {
        || Framed { unit_bytes_max: 8 },
        [b"\0\0\0\x02hi\0\0\0\0\0\0\0\x01!".as_slice(), b"\0\0\0\x09too long!", b"\0\0\0\x05cut"]
    }
}
