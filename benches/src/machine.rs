//! Describes the machine that a suite runs on, without naming it.

use std::fs;
use std::process::Command;

/// Properties of a machine that influence measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Number of cores that this process may use.
    pub cores: usize,
    /// Memory, in units of 10⁹ bytes.
    pub memory_gb: u64,
    /// Version of the Linux kernel.
    pub kernel: String,
    /// Name and version of the compiler.
    pub compiler: String,
    /// Load average of the last 15 minutes.
    ///
    /// A load far above the number of cores that the suite uses means that other programs ran too.
    pub load: String,
}

impl Machine {
    /// Describes the current machine. A property that cannot be determined is `unknown`.
    pub fn current() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kibibytes = memory.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        let unknown = || "unknown".to_owned();
        // The version is followed by a suffix of the distribution or the data center.
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

    /// Returns the class of comparable machines as part of a directory name: `x86_64-2core`.
    pub fn class(&self) -> String {
        format!("{}-{}core", std::env::consts::ARCH, self.cores)
    }
}

/// Returns the first line that a command prints. Returns `None` if the command fails.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
