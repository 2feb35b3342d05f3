//! The machine that something was measured on, without its name. Knows nothing of measurements.

use std::fs;
use std::process::Command;

/// What of a machine matters for a figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// How many of its cores may be used.
    pub cores: usize,
    /// Memory in units of 10⁹ bytes.
    pub memory_gb: u64,
    /// Version of the Linux kernel.
    pub kernel: String,
    /// The compiler with its version.
    pub compiler: String,
    /// Processes that ran or wanted to, on average over the last 15 minutes: well above what a suite itself keeps
    /// busy, others were at work too.
    pub load: String,
}

impl Machine {
    /// The one that this runs on; what cannot be found out is `unknown`.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kibibytes = memory.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        let unknown = || "unknown".to_owned();
        // What follows the version proper is a distributor's or a data centre's mark.
        let kernel = read("/proc/sys/kernel/osrelease").trim().split('-').next().map(str::to_owned);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gb: kibibytes.unwrap_or(0) * 1024 / 1_000_000_000,
            kernel: kernel.filter(|version| !version.is_empty()).unwrap_or_else(unknown),
            compiler: first_line(Command::new("rustc").arg("-V")).unwrap_or_else(unknown),
            load: read("/proc/loadavg").split(' ').nth(2).map_or_else(unknown, str::to_owned),
        }
    }

    /// What machines like it have in common, fit for the name of a folder: `x86_64-2core`.
    pub fn class(&self) -> String {
        format!("{}-{}core", std::env::consts::ARCH, self.cores)
    }
}

/// The first line that a command prints, if it ends well.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
