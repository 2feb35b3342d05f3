//! Compression of the stores that cannot compress by themselves.

use greenwave_benches::Result;
use zstd::bulk::{Compressor, Decompressor};

/// Maximum size of a file, in bytes.
const FILE_BYTES_MAX: usize = 128 << 10;

/// zstd level 1 with reused contexts.
pub(super) struct Zstd(Compressor<'static>, Decompressor<'static>);

impl Zstd {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Compressor::new(1)?, Decompressor::new()?))
    }

    pub(super) fn pack(&mut self, value: &[u8]) -> Result<Vec<u8>> {
        Ok(self.0.compress(value)?)
    }

    pub(super) fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>> {
        Ok(self.1.decompress(packed, FILE_BYTES_MAX)?)
    }
}
