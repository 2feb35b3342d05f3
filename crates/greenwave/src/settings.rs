//! Settings of a run: limits, sizes and times.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave_cache::PublicKey;
use greenwave_testing::{IncompleteMode, StateSeal, TraceMode, UserKey};

use crate::error::Error;
use crate::result_keys::{KeySource, ResultKeys};

use crate::confinement::ConfineMode;
use crate::copies::{CopyMode, Overlays};

/// Settings of a run. The default is the `development` profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Cache of test results.
    pub cache: CacheSettings,
    /// Limits of parallel work.
    pub parallel: ParallelSettings,
    /// Store of files and attempts.
    pub storage: StorageSettings,
    /// Memory of the process.
    pub memory: MemorySettings,
    /// Pools of agent sessions.
    pub pool: PoolSettings,
    /// Limits of an agent's answer.
    pub agent: AgentSettings,
    /// Metrics endpoint.
    pub metrics: MetricsSettings,
    /// Tests of a project (`greenwave test`).
    pub testing: TestingSettings,
    /// Directory of receipts of merged features, which all copies of the project share. `None` for
    /// no receipts.
    pub receipts: Option<PathBuf>,
    /// Runs of plans.
    pub run: RunSettings,
    /// Key that seals the state in the project's directory and the receipts. State that was sealed
    /// with another key, or not at all, is not used. Without a key, state is neither sealed nor
    /// verified: the author of the project's directory decides which features are done.
    pub user_key: Option<UserKey>,
    /// Directories that neither agents nor tests may read, such as that of `user_key`.
    pub private: Vec<PathBuf>,
    /// Keys that authenticate test results, beside those in the project's directory.
    pub result_keys: ResultKeys,
}

/// Settings of runs of plans.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSettings {
    /// Directory of the working copies. `None` for `greenwave` in `$XDG_STATE_HOME`, or else in
    /// `~/.local/state`.
    pub directory: Option<PathBuf>,
    /// Confinement of agents and tests, unless the plan sets it.
    pub confine: ConfineMode,
    /// Method of making working copies.
    pub copies: CopyMode,
    /// Command that runs when a feature needs the user, for plans that name none. Empty for none.
    pub notify: Vec<String>,
    /// Number of answers that an attempt asks for, from 1 to 16, for features that do not set it.
    /// Other numbers count as the nearest of these.
    pub candidates: u32,
    /// Ability of this process to mount overlays. `None` without a separate mount namespace.
    pub overlays: Option<Overlays>,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            directory: None,
            confine: ConfineMode::default(),
            copies: CopyMode::default(),
            notify: Vec::new(),
            candidates: 1,
            overlays: None,
        }
    }
}

/// Settings for a project's tests (`greenwave test`).
#[derive(Debug, Clone, PartialEq)]
pub struct TestingSettings {
    /// Age at which a result expires. Keys cover every known dependency; this bounds the effect of
    /// an unknown one.
    pub ttl: Duration,
    /// Maximum size of the results on disk, in bytes. The oldest are evicted first.
    pub disk_limit: u64,
    /// Address of a server that shares results, such as `redis://host:6379`,
    /// `memcached://host:11211`, `grpc://host:9092`, `s3://bucket/directory` or
    /// `file:///directory`. Empty for no server.
    pub remote: String,
    /// Whether results are written to the server as well as read.
    pub remote_write: bool,
    /// Sources of the keys of [`ResultKeys::remote`].
    pub remote_key: Vec<KeySource>,
    /// Public keys of those whose results on the server are believed. Empty for everybody.
    pub trust: Vec<PublicKey>,
    /// Where results on the server are stored, so that the main branch does not read those of
    /// others.
    pub remote_scope: RemoteScope,
    /// Name of the main branch. Empty to find it.
    pub trunk: String,
    /// Whether tests are traced to discover dependencies beyond the declared inputs, and what
    /// happens where tracing is unavailable.
    pub trace: TraceMode,
    /// Whether results of tests that exchange data with undeclared servers are stored.
    pub incomplete: IncompleteMode,
    /// Servers that all tests may exchange data with.
    pub servers: Vec<String>,
    /// Prevents tests from reading the user's key and from changing stored results, on kernels that
    /// can enforce it.
    pub protect_state: bool,
    /// Whether fewer tests run at once while other programs load the machine.
    pub follow_load: bool,
    /// Share of cached results that are verified by running the test again, from 0 to 1.
    pub audit: f64,
    /// Number of further attempts of a failing test, unless the test declares another number.
    pub retries: u32,
    /// Whether a test that passed only after a retry fails the run.
    pub flaky_fails: bool,
}

/// Which results on the server are read and written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RemoteScope {
    /// `Main` or `Branch`, by the branch of the project. A store treats it as `Main`.
    #[default]
    Auto,
    /// The results of the main branch.
    Main,
    /// The results of this branch, then those of the main branch, which are not written.
    Branch(String),
}

/// Settings of the cache of test results.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheSettings {
    /// Whether results are stored and looked up.
    pub enabled: bool,
    /// Maximum number of results in memory.
    pub entries: usize,
    /// Age at which a result expires.
    pub ttl: Duration,
    /// Directory of the results on disk. `None` for the project's `.greenwave` directory.
    pub directory: Option<PathBuf>,
}

/// Limits of parallel work.
#[derive(Debug, Clone, PartialEq)]
pub struct ParallelSettings {
    /// Maximum number of tests that run at once.
    pub workers: u32,
    /// Maximum number of agent requests in flight.
    pub agents: u32,
    /// Maximum number of features that are started and not ended.
    pub features: u32,
}

/// Settings of the store of files and attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageSettings {
    /// Maximum size of contents in memory, in bytes.
    pub memory_limit: u64,
    /// Compression of contents on disk.
    pub compression: Compression,
    /// Share of `memory_limit` at which contents spill to disk, above 0 and up to 1.
    pub spillover_threshold: f64,
    /// Number of reads after which a spilled content is promoted to memory.
    pub promote_after: u32,
}

/// Compression of contents on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    Off,
    /// zstd at a level from 1 to 19.
    Zstd(i32),
}

/// Settings for the memory of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct MemorySettings {
    /// Whether freed memory is returned to the system at once.
    pub reclaim: bool,
}

/// Settings of the pools of agent sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Maximum number of sessions with one agent.
    pub size: usize,
    /// Number of sessions with one agent that stay open when idle.
    pub min: usize,
    /// Idle time after which a session above the minimum is closed.
    pub idle_timeout: Duration,
}

/// Limits of an agent's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// Maximum duration of one answer.
    pub time_limit: Duration,
    /// Maximum size of one answer, in bytes.
    pub answer_limit: u64,
}

/// Settings of the metrics endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSettings {
    /// Whether the endpoint is served.
    pub enabled: bool,
    /// Address that the endpoint binds to.
    pub address: IpAddr,
    /// Port that the endpoint binds to; 0 for any free port.
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
                remote_key: Vec::new(),
                trust: Vec::new(),
                remote_scope: RemoteScope::Auto,
                trunk: String::new(),
                trace: TraceMode::WhenPossible,
                incomplete: IncompleteMode::Coarse,
                servers: Vec::new(),
                protect_state: true,
                follow_load: true,
                audit: 0.0,
                retries: 0,
                flaky_fails: false,
            },
            receipts: None,
            run: RunSettings::default(),
            user_key: None,
            private: Vec::new(),
            result_keys: ResultKeys::default(),
        }
    }
}

impl Settings {
    /// Returns the seal of a project's state, if there is a key.
    ///
    /// # Errors
    /// [`Error::Io`] if the project does not exist.
    pub(crate) fn seal_of(&self, project: &Path) -> Result<Option<StateSeal>, Error> {
        let seal = self.user_key.as_ref().map(|key| key.for_project(project));
        seal.transpose().map_err(Error::io("find", project))
    }
}
