//! zstd with a prefix: contexts that are used again, each time with another prefix, which the crate's own types do not allow.
//! Knows nothing of records.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ResetDirective};

/// A session is ended first, and between sessions parameters may be reset, so there is nothing that could fail.
const RESET: &str = "both together can always be reset";

/// Compresses against a prefix.
pub(crate) struct PrefixCompressor(CCtx<'static>);

/// Decompresses against a prefix.
pub(crate) struct PrefixDecompressor(DCtx<'static>);

impl PrefixCompressor {
    /// A new context; `None` if there is no memory for one.
    pub(crate) fn new() -> Option<Self> {
        CCtx::try_create().map(Self)
    }

    /// Compresses `value` into `buffer`; `None` if that is too small, or memory is.
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
        // SAFETY: zstd refers to a prefix until the frame that it is for has ended (`ZSTD_CCtx_refPrefix` in zstd.h). The frame is the one that
        // `compress2` makes, or fails to make, in the next line; the reset after it ends a frame that failed and drops the reference.
        let referred = context.ref_prefix(unsafe { extended(prefix) });
        let compressed = referred.and_then(|_| context.compress2(buffer, value));
        context.reset(ResetDirective::SessionAndParameters).expect(RESET);
        compressed.ok()
    }
}

impl PrefixDecompressor {
    /// A new context; `None` if there is no memory for one.
    pub(crate) fn new() -> Option<Self> {
        DCtx::try_create().map(Self)
    }

    /// Decompresses a frame that becomes `len` bytes; `None` if it does not.
    pub(crate) fn decompress(&mut self, prefix: &[u8], frame: &[u8], len: usize) -> Option<Vec<u8>> {
        let context = &mut self.0;
        let mut value: Vec<u8> = Vec::with_capacity(len);
        // SAFETY: as above: zstd refers to a prefix until the frame has ended (`ZSTD_DCtx_refPrefix`), which is the next line; the reset after
        // it ends one that failed and drops the reference.
        let referred = context.ref_prefix(unsafe { extended(prefix) });
        let decompressed = referred.and_then(|_| context.decompress(&mut value, frame));
        context.reset(ResetDirective::SessionAndParameters).expect(RESET);
        decompressed.ok().filter(|decompressed| *decompressed == len && value.len() == len)?;
        Some(value)
    }
}

/// The same bytes, for a context that is kept.
///
/// # Safety
///
/// The bytes must not be used after they end.
unsafe fn extended(bytes: &[u8]) -> &'static [u8] {
    // SAFETY: the pointer and the length are those of a slice; that nobody uses it for too long, the caller promises.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) }
}

/// The window that reaches from the value's end to the prefix's beginning.
fn window_log(bytes: usize) -> u32 {
    bytes.next_power_of_two().ilog2().clamp(10, 27)
}
