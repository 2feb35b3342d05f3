//! Decides how agents and tests of a run are confined.

pub(crate) mod agents;
mod options;
mod paths;
mod secrets;
mod sockets;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use greenwave_sandbox::{Confinement, Network, Sandbox, Strength, landlock_version, own_processes};
use greenwave_testing::Environment;
use parking_lot::Mutex;

pub use self::options::{ConfineMode, ConfineOptions};
use self::paths::Places;
use crate::copies::CommonPlace;
use crate::error::Error;
use crate::event::Event;
use crate::plan::{AgentSpec, CommandSpec, Plan};
use crate::project_root::ProjectRoot;
use crate::project_state::Exposure;
use crate::settings::Settings;

/// The confinement of a run.
#[derive(Debug)]
pub(crate) struct RunConfinement {
    /// Strength of tests and, unless they have another one, of agents. `None` if not confined.
    strength: Option<Strength>,
    /// Reason for running unconfined.
    off: Option<String>,
    options: ConfineOptions,
    places: Places,
    /// The path at which agents and tests see their working copy. `None` if not all of them can.
    common: Option<CommonPlace>,
    /// The sandboxes up to now. Agents that are confined in the same way share one, and with it the
    /// list of the paths that they can see.
    sandboxes: Mutex<Vec<Sandbox>>,
}

impl RunConfinement {
    /// Chooses the strength of a plan, and finds the paths to hide. Blocks while it searches for
    /// files with secrets.
    ///
    /// # Errors
    /// [`Error::Confinement`] if the plan or the settings name a strength that this system does
    /// not have.
    pub(crate) fn new(
        plan: &Plan,
        settings: &Settings,
        environment: &Environment,
        copies: &Path,
    ) -> Result<Self, Error> {
        let mode = plan.confinement.mode.unwrap_or(settings.run.confine);
        let (strength, off) = match strength(mode)? {
            ChosenStrength::Strength(strength) => (Some(strength), None),
            ChosenStrength::Off(reason) => (None, Some(reason)),
        };
        let is_used = strength.is_some() || plan.agents.values().any(|agent| own_mode(agent).is_some());
        let mut places = Places::default();
        if is_used {
            places = Places::find(plan, settings, environment, copies)?;
            let states: Vec<PathBuf> = agents::all_state(&places).collect();
            places.add_sessions(plan, &states);
        }
        let options = plan.confinement.clone();
        let sees_mounts = |agent| match own_mode(agent) {
            None | Some(ConfineMode::Mount) => true,
            Some(ConfineMode::Auto) => Strength::Mount.available().is_ok(),
            Some(ConfineMode::Landlock | ConfineMode::Off) => false,
        };
        let common = if strength == Some(Strength::Mount) && plan.agents.values().all(sees_mounts) {
            let root = ProjectRoot::of(&plan.project)?;
            Some(CommonPlace::new(copies, &root, &plan.project, &plan.name)?)
        } else {
            None
        };
        Ok(Self { strength, off, options, places, common, sandboxes: Mutex::default() })
    }

    /// Returns the sandbox of tests, guards and setup commands. `None` if they are not confined.
    ///
    /// # Errors
    /// [`Error::Network`] if the network that the plan demands cannot be had.
    pub(crate) fn tests(&self) -> Result<Option<Sandbox>, Error> {
        let confinement = agents::all_state(&self.places).fold(self.base(), Confinement::hidden);
        self.sandbox(with_options(confinement, &self.options), self.options.network, self.strength)
    }

    /// Returns the sandbox of an agent. `None` if it is not confined.
    ///
    /// # Errors
    /// [`Error::Confinement`] and [`Error::Network`].
    pub(crate) fn agent(&self, spec: &CommandSpec) -> Result<Option<Sandbox>, Error> {
        let strength = match spec.confinement.mode {
            None => self.strength,
            Some(mode) => match strength(mode)? {
                ChosenStrength::Strength(strength) => Some(strength),
                ChosenStrength::Off(_) => None,
            },
        };
        let mut confinement = with_options(self.base(), &self.options);
        let own = agents::own_state(&spec.command, &self.places);
        if strength.is_some() {
            paths::create_directories(&own);
        }
        if let Some(home) = &self.places.home {
            let writable = self.options.writable.iter().chain(&spec.confinement.writable);
            let files = writable.filter(|path| path.parent() == Some(home) && !path.is_dir());
            let files = files.filter_map(|path| path.file_name().map(OsString::from));
            let files = agents::own_files(&spec.command).into_iter().chain(files).collect();
            confinement = confinement.private_in(home, files);
        }
        if let Some((directory, prefix)) = agents::beside_script(&spec.command, &self.places) {
            confinement = confinement.additions_in(directory, prefix);
        }
        let others = agents::all_state(&self.places).filter(|path| !own.contains(path));
        confinement = others.fold(confinement, Confinement::hidden);
        // Agents share their state with programs outside, and with it locks that name processes.
        confinement = own.iter().fold(confinement, Confinement::writable).shared_processes();
        confinement = self.unchanged(spec).into_iter().fold(confinement, Confinement::unchanged);
        // The plan's network holds for confined agents, and an agent's own must be enforced.
        let inherited = self.options.network.filter(|_| strength.is_some());
        let network = spec.confinement.network.or(inherited);
        self.sandbox(with_options(confinement, &spec.confinement), network, strength)
    }

    /// Returns a sandbox with this confinement, shared with earlier callers.
    fn sandbox(
        &self,
        confinement: Confinement,
        network: Option<Network>,
        strength: Option<Strength>,
    ) -> Result<Option<Sandbox>, Error> {
        let network = network.unwrap_or_default();
        let Some(strength) = strength else {
            return if network == Network::Open { Ok(None) } else { Err(Error::Network { source: None }) };
        };
        let new = Sandbox::new(confinement.network(network), strength);
        let new = new.map_err(|source| Error::Network { source: Some(source) })?;
        let new = match &self.common {
            Some(common) => new.shown_at(common.path.clone(), common.parents.clone()),
            None => new,
        };
        let mut sandboxes = self.sandboxes.lock();
        if let Some(found) = sandboxes.iter().find(|found| **found == new) {
            return Ok(Some(found.clone()));
        }
        sandboxes.push(new.clone());
        Ok(Some(new))
    }

    /// Returns the variables that a confined agent does not get, because they name sockets of
    /// programs that are not confined.
    pub(crate) fn removed_variables() -> &'static [&'static str] {
        &paths::SOCKET_VARIABLES
    }

    /// Returns the event that says how agents and tests are confined.
    pub(crate) fn event(&self, plan: &Plan) -> Event {
        let agents = plan.agents.iter().filter_map(|(name, agent)| {
            let confined = match own_mode(agent)? {
                ConfineMode::Auto => return None,
                ConfineMode::Mount => "mount",
                ConfineMode::Landlock => "landlock",
                ConfineMode::Off => "off",
            };
            Some((name.clone(), confined))
        });
        Event::Confinement {
            strength: self.strength.map_or("off", Strength::as_str),
            landlock: (self.strength == Some(Strength::Landlock)).then(landlock_version).flatten(),
            reason: self.off.clone(),
            shared_processes: self.shared_processes(),
            agents: agents.collect(),
        }
    }

    /// Returns the reason why tests that mounts confine see the user's processes.
    fn shared_processes(&self) -> Option<String> {
        let is_mounted = self.strength == Some(Strength::Mount);
        let shared = is_mounted.then(own_processes).and_then(Result::err)?;
        Some(shared.to_string())
    }

    /// Returns whether tests cannot reach the processes of an agent with this sandbox, and so
    /// cannot wake a suspended one. A run without a confinement separates nothing.
    pub(crate) fn separates_processes(&self, agent: Option<&Sandbox>) -> bool {
        let is_off = self.strength.is_none() && agent.is_none();
        let strengths = [self.strength, agent.map(Sandbox::strength)];
        let is_mounted = strengths.iter().flatten().all(|strength| *strength == Strength::Mount);
        is_off || (is_mounted && own_processes().is_ok())
    }

    /// Returns notes about what this system or this run does not hide.
    pub(crate) fn notes(&self, plan: &Plan) -> impl Iterator<Item = Event> {
        self.replaced_files_note().into_iter().chain(self.sockets_note(plan))
    }

    /// Returns a note if agents or tests that mounts confine reach sockets of programs, because
    /// there are too many to hide.
    fn sockets_note(&self, plan: &Plan) -> Option<Event> {
        let count = self.places.sockets_left_out;
        let uses_mounts = |agent| own_mode(agent) == Some(ConfineMode::Mount);
        let is_mounted = self.strength == Some(Strength::Mount) || plan.agents.values().any(uses_mounts);
        (is_mounted && count > 0).then(|| Event::Note {
            code: "sockets-left-out",
            feature: None,
            message: format!(
                "agents and tests can connect to {count} sockets of running programs in `/tmp` and other \
                 directories of sessions, because only {} are hidden",
                sockets::SOCKETS_MAX
            ),
            hint: Some("name the directories of the others in `hidden`".to_owned()),
        })
    }

    /// Returns a note if agents or tests can read hidden files that are replaced during the run.
    fn replaced_files_note(&self) -> Option<Event> {
        // The strength may be available and the list of files may not.
        let problem = self.sandboxes.lock().iter().find_map(Sandbox::replaced_files_problem)?;
        Some(Event::Note {
            code: "replaced-files",
            feature: None,
            message: format!(
                "agents and tests can read a hidden file, such as `.env`, that is replaced or created during \
                 the run: {problem}"
            ),
            hint: Some("see docs/confinement.md for what is hidden".to_owned()),
        })
    }

    /// Returns what agents and tests can change in the project in spite of the confinement.
    pub(crate) fn exposure(&self, plan: &Plan) -> Option<Exposure> {
        let is_off = |agent| own_mode(agent) == Some(ConfineMode::Off);
        let uses_landlock = |agent| own_mode(agent) == Some(ConfineMode::Landlock);
        if self.strength.is_none() || plan.agents.values().any(is_off) {
            return Some(Exposure::All);
        }
        let has_landlock =
            self.strength == Some(Strength::Landlock) || plan.agents.values().any(uses_landlock);
        let stops_truncation = landlock_version().is_some_and(|version| version >= 3);
        let exposure = if stops_truncation { Exposure::Metadata } else { Exposure::Length };
        has_landlock.then_some(exposure)
    }

    /// Returns the directories of the plan and of agents' scripts outside of the project.
    pub(crate) fn exposed(&self, plan: &Plan) -> Vec<PathBuf> {
        let plan_dir =
            plan.file.as_deref().and_then(|file| file.canonicalize().ok()?.parent().map(Path::to_owned));
        let plan_dir = plan_dir.filter(|directory| paths::holds_projects(directory));
        let programs = plan.agents.values().filter_map(AgentSpec::as_command);
        let commands = programs.map(|spec| &spec.command);
        let scripts = commands.filter_map(|command| Some(agents::beside_script(command, &self.places)?.0));
        let mut found: Vec<PathBuf> = plan_dir.into_iter().chain(scripts).collect();
        found.retain(|directory| !directory.starts_with(&self.places.root));
        found.sort();
        found.dedup();
        found
    }

    /// Returns the settings of the plan's confined agents that these may change and that count in
    /// their sessions outside of the run.
    pub(crate) fn agent_settings(&self, plan: &Plan) -> Vec<PathBuf> {
        let is_confined =
            |mode: Option<ConfineMode>| mode.map_or(self.strength.is_some(), |mode| mode != ConfineMode::Off);
        let programs = plan.agents.values().filter_map(AgentSpec::as_command);
        let confined = programs.filter(|spec| is_confined(spec.confinement.mode));
        let mut found: Vec<PathBuf> =
            confined.flat_map(|spec| agents::own_trusted(&spec.command, &self.places)).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Returns the settings that agents under mounts cannot change and that can be created for the
    /// time of the run: those in directories of state.
    pub(crate) fn absent_settings(&self, plan: &Plan) -> Vec<PathBuf> {
        let is_mounted = |spec: &&CommandSpec| match spec.confinement.mode {
            None => self.strength == Some(Strength::Mount),
            Some(mode) => {
                matches!(strength(mode), Ok(ChosenStrength::Strength(Strength::Mount)))
            }
        };
        let programs = plan.agents.values().filter_map(AgentSpec::as_command).filter(is_mounted);
        let mut found: Vec<PathBuf> = programs.flat_map(|spec| self.unchanged(spec)).collect();
        found.retain(|path| path.parent() != self.places.home.as_deref());
        found.sort();
        found.dedup();
        found
    }

    /// Returns the settings of an agent that it cannot change under mounts, unless the plan makes
    /// them writable.
    fn unchanged(&self, spec: &CommandSpec) -> Vec<PathBuf> {
        let mut found = agents::own_unchanged(&spec.command, &self.places);
        let writable = || self.options.writable.iter().chain(&spec.confinement.writable);
        found.retain(|path| !writable().any(|writable| writable.components().eq(path.components())));
        found
    }

    fn base(&self) -> Confinement {
        let places = &self.places;
        let base = places.hidden.iter().fold(Confinement::new(), Confinement::hidden);
        // Landlock does not restrict connections to sockets.
        let base = places.sockets.iter().fold(base, Confinement::covered);
        let base = places.readable.iter().fold(base, Confinement::readable);
        places.caches.iter().fold(base, Confinement::writable)
    }
}

/// The result of a choice of strength.
enum ChosenStrength {
    Strength(Strength),
    /// No confinement, for this reason.
    Off(String),
}

fn strength(mode: ConfineMode) -> Result<ChosenStrength, Error> {
    let demand = |strength: Strength| match strength.available() {
        Ok(()) => Ok(ChosenStrength::Strength(strength)),
        Err(source) => Err(Error::Confinement { source }),
    };
    match mode {
        ConfineMode::Off => Ok(ChosenStrength::Off("confine = \"off\"".to_owned())),
        ConfineMode::Mount => demand(Strength::Mount),
        ConfineMode::Landlock => demand(Strength::Landlock),
        ConfineMode::Auto => Ok(match Strength::strongest() {
            Ok(strength) => ChosenStrength::Strength(strength),
            Err(error) => ChosenStrength::Off(error.to_string()),
        }),
    }
}

/// Returns the mode that an agent sets for itself.
fn own_mode(agent: &AgentSpec) -> Option<ConfineMode> {
    agent.as_command()?.confinement.mode
}

/// Adds the paths that a plan or an agent names.
fn with_options(base: Confinement, options: &ConfineOptions) -> Confinement {
    let base = options.writable.iter().fold(base, Confinement::writable);
    let base = options.hidden.iter().fold(base, Confinement::hidden);
    options.readable.iter().fold(base, Confinement::readable)
}
