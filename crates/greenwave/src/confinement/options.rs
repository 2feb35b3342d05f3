//! Options of the confinement of agents and tests.

use std::path::PathBuf;

use greenwave_sandbox::Network;

/// Way in which agents and tests are confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConfineMode {
    /// By mounts if the system permits it, else by Landlock, else not at all.
    #[default]
    Auto,
    /// By mounts. An error if the system does not permit it.
    Mount,
    /// By Landlock. An error if the kernel does not have it.
    Landlock,
    /// Not at all.
    Off,
}

/// Options of the confinement in a plan, or of one agent in addition to the plan's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfineOptions {
    /// Way to confine. `None` for the settings of the run, or for an agent the plan's.
    pub mode: Option<ConfineMode>,
    /// Paths that may be written to, absolute.
    pub writable: Vec<PathBuf>,
    /// Paths that are hidden by default and may be read, absolute.
    pub readable: Vec<PathBuf>,
    /// Further paths to hide, absolute.
    pub hidden: Vec<PathBuf>,
    /// The network. `None` for an open one, or for an agent the plan's.
    pub network: Option<Network>,
}
