//! How a run is to be carried out: limits, sizes, times. Knows nothing of files or variables that values may come from.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use greenwave_testing::TraceMode;

/// Everything that can be set. The default is the `development` profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Results of tests.
    pub cache: CacheSettings,
    /// Work at the same time.
    pub parallel: ParallelSettings,
    /// Files and attempts.
    pub storage: StorageSettings,
    /// Memory of the process.
    pub memory: MemorySettings,
    /// Sessions with agents.
    pub pool: PoolSettings,
    /// What agents may do.
    pub agent: AgentSettings,
    /// The endpoint with live figures.
    pub metrics: MetricsSettings,
    /// A project's own tests (`greenwave test`).
    pub testing: TestingSettings,
}

/// A project's own tests.
#[derive(Debug, Clone, PartialEq)]
pub struct TestingSettings {
    /// How long a result is believed. Results depend on everything that is known to change them, so this is about what is not.
    pub ttl: Duration,
    /// Most bytes of results on disk; the oldest go first.
    pub disk_limit: u64,
    /// Address of a server that results are shared by, `redis://host:6379` or `memcached://host:11211`; empty for none.
    pub remote: String,
    /// Whether results are written to that server, or only read.
    pub remote_write: bool,
    /// Whether it is found out what tests look at beside their declared inputs, and what is done where that cannot be.
    pub trace: TraceMode,
    /// Whether fewer tests run at once while the machine is busy with other things.
    pub follow_load: bool,
    /// The share of known results that are made again and compared, from 0 to 1.
    pub audit: f64,
}

/// Results of tests.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// Whether results are kept and looked up.
    pub enabled: bool,
    /// Most results in memory.
    pub entries: usize,
    /// How long a result is believed.
    pub ttl: Duration,
    /// Where results are kept on disk; `None` for the project's own `.greenwave` folder.
    pub directory: Option<PathBuf>,
}

/// Work at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct ParallelSettings {
    /// Tests that run at once.
    pub workers: u32,
    /// Questions that are with agents at once.
    pub agents: u32,
    /// Features begun and not yet finished at once.
    pub features: u32,
}

/// Files and attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageSettings {
    /// Bytes that contents may take up in memory.
    pub memory_limit: u64,
    /// How contents are compressed on disk.
    pub compression: Compression,
    /// The share of the limit at which contents begin to move to disk; above 0, up to 1.
    pub spillover_threshold: f64,
    /// How often a content on disk must be read to come back into memory.
    pub promote_after: u32,
}

/// How contents are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// With zstd at this level, from 1 to 19.
    Zstd(i32),
}

/// Memory of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct MemorySettings {
    /// Whether freed memory is given back to the system at once.
    pub reclaim: bool,
}

/// Sessions with agents.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Most sessions with one agent.
    pub size: usize,
    /// Sessions with one agent that are kept even when idle.
    pub min: usize,
    /// How long a session above the minimum stays idle before it is closed.
    pub idle_timeout: Duration,
}

/// What agents may do.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// How long one answer may take.
    pub time_limit: Duration,
    /// Most bytes of one answer.
    pub answer_limit: u64,
}

/// The endpoint with live figures.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// The address it is bound to.
    pub address: IpAddr,
    /// Its port; 0 for any that is free.
    pub port: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache: CacheSettings {
                enabled: true,
                entries: 100,
                ttl: Duration::from_secs(3600),
                directory: None,
            },
            parallel: ParallelSettings { workers: 2, agents: 8, features: 16 },
            storage: StorageSettings {
                memory_limit: 50_000_000,
                compression: Compression::Off,
                spillover_threshold: 1.0,
                promote_after: 3,
            },
            memory: MemorySettings { reclaim: false },
            pool: PoolSettings { size: 10, min: 2, idle_timeout: Duration::from_secs(300) },
            agent: AgentSettings { time_limit: Duration::from_secs(600), answer_limit: 16_000_000 },
            metrics: MetricsSettings { enabled: true, address: Ipv4Addr::LOCALHOST.into(), port: 8080 },
            testing: TestingSettings {
                ttl: Duration::from_secs(30 * 24 * 3600),
                disk_limit: 1_000_000_000,
                remote: String::new(),
                remote_write: true,
                trace: TraceMode::WhenPossible,
                follow_load: true,
                audit: 0.0,
            },
        }
    }
}
