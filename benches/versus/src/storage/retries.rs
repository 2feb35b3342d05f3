//! The workload of retrying agents: the files of each feature change a little with every attempt,
//! and all attempts are stored.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_benches::Result;
use greenwave_storage::{
    AttemptOutcome, Attempts, Compression, NewAttempt, SegmentColdTier, SegmentOptions, Store, StoreOptions,
};

use super::corpus::{Random, sources};
use super::process::{Usage, directory_bytes};

const FEATURES: usize = 50;
const FILES: usize = 10;
const ATTEMPTS: usize = 20;

/// A working copy of the files of all features, edited in place before each attempt.
#[derive(Debug)]
pub struct Retries {
    copy: PathBuf,
    random: Random,
}

/// Memory and disk space that all attempts took.
#[derive(Debug)]
pub struct AttemptsUsage {
    /// Total size of all files of all attempts, in bytes.
    pub raw_bytes: u64,
    /// Size on disk, in bytes.
    pub disk_bytes: u64,
    /// Peak resident memory of the process, in bytes.
    pub peak_bytes: u64,
}

impl Retries {
    /// Creates the working copy.
    ///
    /// # Errors
    /// If it cannot be created.
    ///
    /// # Panics
    /// If cargo has unpacked too few files.
    pub fn new(copy: PathBuf) -> Result<Self> {
        for (number, source) in sources(FEATURES * FILES, &(16 << 10..=64 << 10)).iter().enumerate() {
            fs::create_dir_all(copy.join(format!("{}", number / FILES)))?;
            fs::copy(source, copy.join(format!("{}/{}.rs", number / FILES, number % FILES)))?;
        }
        Ok(Self { copy, random: Random::new(7) })
    }

    /// Calls `on_attempt` for each attempt, alternating between the features.
    fn each(
        &mut self,
        mut on_attempt: impl FnMut(usize, BTreeMap<String, Bytes>) -> Result<()>,
    ) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            for feature in 0..FEATURES {
                let mut files = BTreeMap::new();
                for file in 0..FILES {
                    let path = self.copy.join(format!("{feature}/{file}.rs"));
                    let mut text = fs::read(&path)?;
                    if attempt > 0 {
                        text = self.random.edit(&text);
                        fs::write(&path, &text)?;
                    }
                    files.insert(format!("src/{file}.rs"), Bytes::from(text));
                }
                on_attempt(feature, files)?;
            }
        }
        Ok(())
    }

    /// Holds all attempts in memory, like a program without a store.
    ///
    /// # Errors
    /// If the working copy cannot be edited.
    pub fn hold_everything(&mut self) -> Result<AttemptsUsage> {
        let (mut held, mut raw_bytes) = (HashMap::new(), 0);
        self.each(|feature, files| {
            raw_bytes += bytes_of(&files);
            held.entry(feature).or_insert_with(Vec::new).push(files);
            Ok(())
        })?;
        let attempts: usize = held.values().map(Vec::len).sum();
        assert_eq!(attempts, FEATURES * ATTEMPTS);
        Ok(AttemptsUsage { raw_bytes, disk_bytes: 0, peak_bytes: Usage::now()?.peak_bytes })
    }

    /// Compresses every file separately, at a zstd level.
    ///
    /// # Errors
    /// If the working copy cannot be edited.
    pub fn compress_each(&mut self, level: i32) -> Result<AttemptsUsage> {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        let (mut raw_bytes, mut disk_bytes) = (0, 0);
        self.each(|_, files| {
            raw_bytes += bytes_of(&files);
            for file in files.values() {
                disk_bytes += zstd.compress(file)?.len() as u64;
            }
            Ok(())
        })?;
        Ok(AttemptsUsage { raw_bytes, disk_bytes, peak_bytes: Usage::now()?.peak_bytes })
    }

    /// Records the attempts in a store with the settings of a profile: development, production or
    /// memory-constrained.
    ///
    /// # Errors
    /// If the profile does not exist, or the store fails.
    pub fn record(&mut self, directory: &Path, profile: &str) -> Result<AttemptsUsage> {
        let (megabytes, spillover_threshold, compression, reclaim) = match profile {
            "development" => (50, 1.0, Compression::None, false),
            "production" => (500, 1.0, Compression::Zstd { level: 6 }, true),
            "memory-constrained" => (10, 0.7, Compression::Zstd { level: 6 }, true),
            other => return Err(format!("invalid profile {other:?}").into()),
        };
        let memory_bytes_max = megabytes * 1_000_000;
        let options = StoreOptions { memory_bytes_max, spillover_threshold, promote_after: 3, reclaim };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let cold = SegmentOptions { compression, ..SegmentOptions::default() };
        let cold = SegmentColdTier::open(directory, cold)?;
        let store = runtime.block_on(async { Store::open(options, Arc::new(cold)) })?;
        let attempts = Attempts::new(store.clone(), "attempts");
        let mut raw_bytes = 0;
        let mut last = BTreeMap::new();
        self.each(|feature, files| {
            raw_bytes += bytes_of(&files);
            last.clone_from(&files);
            let draft = NewAttempt {
                files,
                outcome: AttemptOutcome::Failed,
                note: "4 of 5 tests failed".to_owned(),
                ..NewAttempt::default()
            };
            runtime.block_on(attempts.record(&feature.to_string(), draft))?;
            Ok(())
        })?;
        runtime.block_on(store.close())?;
        let name = (FEATURES - 1).to_string();
        let found = runtime.block_on(attempts.list(&name))?;
        assert_eq!(found.len(), ATTEMPTS);
        let files = runtime.block_on(attempts.files(&found[ATTEMPTS - 1]))?;
        assert_eq!(files, last);
        Ok(AttemptsUsage {
            raw_bytes,
            disk_bytes: directory_bytes(directory)?,
            peak_bytes: Usage::now()?.peak_bytes,
        })
    }
}

fn bytes_of(files: &BTreeMap<String, Bytes>) -> u64 {
    files.values().map(|file| file.len() as u64).sum()
}
