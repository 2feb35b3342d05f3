//! Reusable zstd contexts for compression against a prefix that changes with every call, which the
//! `zstd` crate does not offer.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ResetDirective};

/// A reset between frames cannot fail.
const RESET: &str = "a reset between frames cannot fail";

/// Compresses against a prefix.
pub(crate) struct PrefixCompressor(CCtx<'static>);

/// Decompresses against a prefix.
pub(crate) struct PrefixDecompressor(DCtx<'static>);

impl PrefixCompressor {
    /// Creates a context; `None` if memory is exhausted.
    pub(crate) fn new() -> Option<Self> {
        CCtx::try_create().map(Self)
    }

    /// Compresses `value` into `buffer`; `None` if the buffer is too small or memory is exhausted.
    pub(crate) fn compress(
        &mut self,
        level: i32,
        prefix: &[u8],
        value: &[u8],
        buffer: &mut [u8],
    ) -> Option<usize> {
        let context = &mut self.0;
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        context.set_parameter(CParameter::WindowLog(window_log(prefix.len() + value.len()))).ok()?;
        // SAFETY: zstd uses a prefix until the end of the frame that it is for
        // (`ZSTD_CCtx_refPrefix` in zstd.h). The call of `compress2` in the next line writes this
        // frame or fails; the reset after it ends a failed frame and drops the reference. `prefix`
        // outlives both.
        let referred = context.ref_prefix(unsafe { extended(prefix) });
        let compressed = referred.and_then(|_| context.compress2(buffer, value));
        context.reset(ResetDirective::SessionAndParameters).expect(RESET);
        compressed.ok()
    }
}

impl PrefixDecompressor {
    /// Creates a context; `None` if memory is exhausted.
    pub(crate) fn new() -> Option<Self> {
        DCtx::try_create().map(Self)
    }

    /// Decompresses a frame to exactly `len` bytes; `None` if it does not have that size.
    pub(crate) fn decompress(&mut self, prefix: &[u8], frame: &[u8], len: usize) -> Option<Vec<u8>> {
        let context = &mut self.0;
        let mut value: Vec<u8> = Vec::with_capacity(len);
        // SAFETY: as in `compress`: zstd uses a prefix until the end of the frame
        // (`ZSTD_DCtx_refPrefix`), which the next line reads; the reset after it ends a failed
        // frame and drops the reference. `prefix` outlives both.
        let referred = context.ref_prefix(unsafe { extended(prefix) });
        let decompressed = referred.and_then(|_| context.decompress(&mut value, frame));
        context.reset(ResetDirective::SessionAndParameters).expect(RESET);
        decompressed.ok().filter(|decompressed| *decompressed == len && value.len() == len)?;
        Some(value)
    }
}

/// Extends the lifetime of a slice, for a context that is reused.
///
/// # Safety
///
/// The result must not be used after `bytes` ends.
unsafe fn extended(bytes: &[u8]) -> &'static [u8] {
    // SAFETY: pointer and length are those of a slice; the caller does not use the result after the
    // slice ends.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
}

/// Returns the window size that reaches from the end of the value to the beginning of the prefix.
fn window_log(bytes: usize) -> u32 {
    bytes.next_power_of_two().ilog2().clamp(10, 27)
}
