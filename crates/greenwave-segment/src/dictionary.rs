//! Trains compression dictionaries on the values of a log. A dictionary is stored in the log as a
//! record that callers do not see.

use crate::append::Appender;
use crate::codec::{DICTIONARY_VALUE_BYTES_MAX, Frame, dictionary_id};
use crate::inner::Inner;
use crate::options::Compression;
use crate::read::Reader;
use crate::record::{Header, RecordKind, hash_payload};
use crate::unread::Unread;
use crate::{Error, Options};

/// Size of the samples in multiples of the dictionary size, as zstd's documentation recommends.
const SAMPLES_PER_BYTE: usize = 100;
/// Minimum number of samples.
const SAMPLES_MIN: usize = 16;

/// Trains dictionaries on the values of a log.
#[derive(Clone, Copy)]
pub(crate) struct Trainer<'a> {
    inner: &'a Inner,
    reader: Reader<'a>,
    appender: Appender<'a>,
}

impl<'a> Trainer<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, reader: Reader::new(inner), appender: Appender::new(inner) }
    }

    /// Trains a dictionary and uses it for new values; see
    /// [`Log::train_dictionary`](crate::Log::train_dictionary).
    pub(crate) fn train_dictionary(&self, bytes_max: usize) -> Result<bool, Error> {
        let refuse = |value: String, accepted| Err(Error::Option { option: "bytes_max", value, accepted });
        if !(1 << 10..=1 << 20).contains(&bytes_max) {
            return refuse(bytes_max.to_string(), "a number from 1024 to 1048576");
        }
        let Options { compression: Compression::Zstd { .. }, .. } = self.inner.options else {
            return Err(Error::Option { option: "compression", value: "None".into(), accepted: "Zstd" });
        };
        Unread::new(self.inner).load_all()?;
        let (samples, sizes) = self.samples(bytes_max * SAMPLES_PER_BYTE)?;
        if sizes.len() < self.samples_min() {
            return Ok(false);
        }
        let Some(dictionary) = self.train(&samples, &sizes, bytes_max) else { return Ok(false) };
        let key = dictionary_id(&dictionary).to_le_bytes();
        let mut header = Header::empty(RecordKind::Dictionary, &key);
        header.raw_len = u32::try_from(dictionary.len()).expect("at most 1 MiB");
        (header.stored_len, header.payload_hash) = (header.raw_len, hash_payload(&dictionary));
        let mut frame = Frame::new(header, &key, &dictionary);
        self.appender.append(&mut frame)?;
        // A flushed value must not depend on a dictionary that a power cut can take away.
        self.appender.flush_shared()?;
        let id = self.inner.codec.add_dictionary(dictionary.into());
        self.inner.codec.use_dictionary(id);
        Ok(true)
    }

    /// Returns the minimum number of samples. A simulation has few values, and its dictionaries
    /// need not be good ones.
    fn samples_min(&self) -> usize {
        if self.inner.disk.is_simulated() { 2 } else { SAMPLES_MIN }
    }

    /// Trains a dictionary; `None` if the samples have nothing in common, or too little for a
    /// dictionary of this size.
    fn train(&self, samples: &[u8], sizes: &[usize], bytes_max: usize) -> Option<Vec<u8>> {
        if self.inner.disk.is_simulated() {
            // zstd takes any bytes as a dictionary. Training would take most of the time of a
            // simulation, and would fail for most of its values.
            return Some(samples[..samples.len().min(bytes_max)].to_vec());
        }
        zstd::dict::from_continuous(samples, sizes, bytes_max).ok()
    }

    /// Returns the concatenation and the sizes of small values, spread evenly over all keys.
    fn samples(&self, bytes_max: usize) -> Result<(Vec<u8>, Vec<usize>), Error> {
        let keys = {
            let index = self.inner.index.read();
            let small = index.entries().filter(|entry| {
                !entry.tombstone
                    && entry.depth == 0
                    && (8..=DICTIONARY_VALUE_BYTES_MAX).contains(&(entry.raw_len as usize))
            });
            let small: Vec<_> = small.map(|entry| (entry.key.clone(), entry.raw_len as usize)).collect();
            let total: usize = small.iter().map(|(_, len)| len).sum();
            let step = total.div_ceil(bytes_max).max(1);
            small.into_iter().step_by(step).map(|(key, _)| key).collect::<Vec<_>>()
        };
        let (mut samples, mut sizes) = (Vec::new(), Vec::new());
        for key in keys {
            if let Some(value) = self.reader.get(key.as_slice())?
                && samples.len() + value.len() <= bytes_max
            {
                samples.extend_from_slice(&value);
                sizes.push(value.len());
            }
        }
        Ok((samples, sizes))
    }
}
