//! Adapters that build the parts of a run from the settings, with the crates that provide them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use greenwave_agents::{AcpAgent, Agent, AgentPool, AgentPoolOptions, CommandAgent, Script, ScriptedAgent};
use greenwave_cache::Secret;
use greenwave_cache::{DiskBackend, DiskOptions, FileLeases, MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_dir::Dir;
use greenwave_pooling::{BatchOptions, Batcher};
use greenwave_storage::{ColdTier, SegmentColdTier, SegmentOptions, Store, StoreOptions};
use greenwave_testing::{Environment, SCHEMA, StateSeal};

use crate::agent_settings;
use crate::confinement::{RunConfinement, agents as known_agents};
use crate::error::Error;
use crate::http_agent::HttpAgents;
use crate::mask::AddedSecrets;
use crate::plan::{AgentProtocol, AgentSpec, CommandSpec, Plan};
use crate::recording;
use crate::recovering_tier::RecoveringTier;
use crate::settings::{Compression, Settings};
use crate::state_dir;
use crate::state_home::StateHome;

/// Mean size of a result, in bytes. The memory limit of the cache is this times the number of
/// entries.
const RESULT_BYTES_MEAN: u64 = 16 * 1024;

/// Returns the namespace of the attempts in the store.
///
/// With a seal, the name is a secret, so a store that somebody else has filled does not contain its
/// names.
pub(crate) fn attempts_namespace(seal: Option<&StateSeal>) -> String {
    match seal {
        Some(seal) => {
            let secret = blake3::Hash::from_bytes(seal.derive("greenwave 2026-11 names of attempts"));
            format!("attempts-{}", &secret.to_hex()[..32])
        }
        None => "attempts".to_owned(),
    }
}

/// Builds the agents of a plan, each with its pool of sessions. Programs get the variables, or lose
/// those without a value. Keys of model servers are added to the secrets.
pub(crate) fn agents(
    plan: &Plan,
    settings: &Settings,
    environment: &Environment,
    variables: &[(OsString, Option<OsString>)],
    confinement: &RunConfinement,
    secrets: &AddedSecrets,
) -> Result<BTreeMap<String, AgentPool>, Error> {
    let mut agents = BTreeMap::new();
    let recording = recording::open(&plan.exchanges, environment, secrets)?;
    let servers = HttpAgents::new(environment, secrets, recording.clone());
    for (name, spec) in &plan.agents {
        let agent: Arc<dyn Agent> = match spec {
            AgentSpec::Scripted { script, pace } => {
                let script = Script::read(script);
                let script = script.map_err(|source| Error::Agent { agent: name.clone(), source })?;
                Arc::new(ScriptedAgent::new(script, *pace))
            }
            AgentSpec::Http(spec) => servers.agent(name, spec)?,
            AgentSpec::Command(spec @ CommandSpec { command, time_max, .. }) => {
                let time_max = time_max.unwrap_or(settings.agent.time_limit);
                let sandbox = confinement.agent(spec)?;
                let unconfined = spec.unconfined_command.as_ref().filter(|_| sandbox.is_none());
                let agent = CommandAgent::new(unconfined.unwrap_or(command).clone(), time_max);
                let agent = agent.supervised_by(environment.supervisor().cloned());
                let removed = RunConfinement::removed_variables().iter().filter(|_| sandbox.is_some());
                let removed = removed.map(|name| (OsString::from(name), None));
                // The user's own settings hold.
                let set = known_agents::own_settings(command).into_iter();
                let programs = spec.program.iter().flat_map(|program| program.variables());
                let set = set.chain(programs.map(|(name, value)| ((*name).into(), Some((*value).into()))));
                let set =
                    set.filter(|(name, _)| name.to_str().is_none_or(|name| environment.get(name).is_none()));
                let own = spec.env.iter().map(|(name, value)| (name.into(), Some(value.into())));
                let agent = match spec.program {
                    Some(program) => agent.of_program(program),
                    None => agent,
                };
                let variables = variables.iter().cloned().chain(removed).chain(set).chain(own);
                let agent = agent.with_variables(variables);
                let keeps = confinement.separates_processes(sandbox.as_ref());
                let agent = agent.confined_by(sandbox).storing_state_if(agent_settings::is_harmless);
                match spec.protocol {
                    AgentProtocol::Pipe => Arc::new(agent.with_recording(recording.clone())),
                    AgentProtocol::Acp => Arc::new(AcpAgent::new(agent, time_max).keeping(keeps)),
                }
            }
        };
        agents.insert(name.clone(), sessions(name, agent, settings));
    }
    Ok(agents)
}

/// Builds the pool of sessions with one agent.
pub(crate) fn sessions(name: &str, agent: Arc<dyn Agent>, settings: &Settings) -> AgentPool {
    let limits = AgentPoolOptions {
        size: settings.pool.size,
        min: settings.pool.min,
        idle_timeout: settings.pool.idle_timeout,
    };
    AgentPool::new(name, agent, limits)
}

/// Opens the store of files and attempts, with its cold tier in a directory.
pub(crate) fn store(settings: &Settings, directory: &Path) -> Result<Store, Error> {
    let cold = SegmentColdTier::open(directory, cold_options(settings)).map_err(Error::store("open"))?;
    store_on(settings, Arc::new(cold))
}

/// Opens the store of a run, whose directory may be removed meanwhile.
pub(crate) fn store_of_run(settings: &Settings, home: &Arc<StateHome>) -> Result<Store, Error> {
    let cold = RecoveringTier::open(Arc::clone(home), cold_options(settings));
    let cold = cold.map_err(Error::store("open"))?;
    store_on(settings, Arc::new(cold))
}

fn cold_options(settings: &Settings) -> SegmentOptions {
    let compression = match settings.storage.compression {
        Compression::Off => greenwave_segment::Compression::None,
        Compression::Zstd(level) => greenwave_segment::Compression::Zstd { level },
    };
    SegmentOptions { compression, ..SegmentOptions::default() }
}

fn store_on(settings: &Settings, cold: Arc<dyn ColdTier>) -> Result<Store, Error> {
    let options = StoreOptions {
        memory_bytes_max: settings.storage.memory_limit,
        spillover_threshold: settings.storage.spillover_threshold,
        promote_after: settings.storage.promote_after,
        reclaim: settings.memory.reclaim,
    };
    Store::open(options, cold).map_err(Error::store("open"))
}

/// Opens the cache of test results: memory over disk. Returns `None` if the cache is disabled.
///
/// Results in the project's directory are sealed, as all its state.
pub(crate) fn cache(
    settings: &Settings,
    state_dir: &Dir,
    seal: Option<&StateSeal>,
) -> Result<Option<Tiered>, Error> {
    if !settings.cache.enabled {
        return Ok(None);
    }
    let directory = match &settings.cache.directory {
        Some(directory) => {
            let project = state_dir.path().parent().unwrap_or(state_dir.path());
            let created = state_dir::create_named(project, directory);
            created.map_err(Error::io("use", directory))?;
            directory.clone()
        }
        None => state_dir::create(state_dir, "results")?,
    };
    let failed =
        |source: greenwave_cache::Error| Error::Cache { path: directory.clone(), source: source.into() };
    let bytes_max = RESULT_BYTES_MEAN.saturating_mul(settings.cache.entries as u64);
    let memory = MemoryBackend::new(settings.cache.entries, bytes_max).map_err(failed)?;
    let disk = DiskBackend::open(&directory, DiskOptions::default()).map_err(failed)?;
    let tier = |name: &str, backend| Tier::new(name, backend);
    let tiers = vec![tier("memory", Arc::new(memory)), tier("disk", Arc::new(disk))];
    let leases = FileLeases::open(directory.join("leases")).map_err(failed)?;
    let options = TieredOptions {
        age_max: Some(settings.cache.ttl),
        leases: Some(Arc::new(leases)),
        secret: result_secret(settings, seal),
        ..TieredOptions::new(SCHEMA)
    };
    Ok(Some(Tiered::new(tiers, options)))
}

/// Returns the directories that [`cache`] uses in the state directory.
pub(crate) fn caches(settings: &Settings) -> &'static [&'static str] {
    let is_there = settings.cache.enabled && settings.cache.directory.is_none();
    if is_there { &["results", "results/leases"] } else { &[] }
}

/// Returns the secret of the results, which is bound to the project unless they are in a directory
/// of their own that several projects may share.
fn result_secret(settings: &Settings, seal: Option<&StateSeal>) -> Option<Secret> {
    let secret = match settings.cache.directory {
        Some(_) => settings.user_key.as_ref()?.derive("greenwave 2026-11 results in a directory"),
        None => seal?.derive("greenwave 2026-11 results of runs"),
    };
    Some(Secret::new(&secret))
}

/// Flushes the store, once for all features that request it at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Flusher(Batcher<(), Result<(), Arc<greenwave_storage::Error>>>);

impl Flusher {
    pub(crate) fn new(store: Store) -> Self {
        // A second concurrent flush would only wait for the same disk.
        let config = BatchOptions { in_flight_max: 1, ..BatchOptions::default() };
        Self(Batcher::new(config, move |requests: Vec<()>| {
            let store = store.clone();
            async move {
                let flushed = store.flush().await.map_err(Arc::new);
                vec![flushed; requests.len()]
            }
        }))
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let flushed = self.0.submit(()).await.map_err(Error::store("flush"))?;
        flushed.map_err(Error::store("flush"))
    }
}
