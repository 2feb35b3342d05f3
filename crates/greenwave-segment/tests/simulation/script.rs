//! Scripts: operations of processes, and faults. A script is created at random, shrunk and printed.

use std::fmt;

use greenwave_testkit::random::Random;

/// An operation of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Put { key: u8, len: u16 },
    PutDelta { key: u8, len: u16, base: u8 },
    Remove { key: u8 },
    WriteBatch { first: u8, count: u8, len: u16 },
    Increment { counter: u8 },
    Get { key: u8 },
    Flush,
    Refresh,
    Compact,
    TrainDictionary,
    Reopen,
}

/// Options of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) compressed: bool,
    pub(crate) chain_depth_max: u8,
    /// Disk budget in KiB; 0 is unlimited.
    pub(crate) disk_kib_max: u16,
    pub(crate) drop_oldest: bool,
    pub(crate) open_files_max: u32,
    /// Processes that read the index as needed: bit `n` is that of process `n`.
    pub(crate) on_demand: u8,
}

impl LogSettings {
    /// Returns the settings of a process.
    pub(crate) fn of(self, process: usize) -> Self {
        Self { on_demand: self.on_demand >> (process % 8) & 1, ..self }
    }
}

/// Crash in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// All processes finish.
    None,
    /// A process is killed; the others continue.
    Kill { process: u8, step: u32 },
    /// All processes end, and unsynced data is preserved completely (0), not at all (1), or in
    /// part.
    Power { step: u32, unsynced: u8 },
}

/// Processes that run concurrently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) processes: Vec<Vec<Op>>,
    pub(crate) crash: Crash,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Seed of the interleavings, the faults and the effects of power cuts.
    pub(crate) seed: u64,
    pub(crate) settings: LogSettings,
    /// Probability of a switch to another process after a step, in percent.
    pub(crate) switch_percent: u8,
    pub(crate) short_per_mille: u16,
    pub(crate) interrupted_per_mille: u16,
    /// Capacity of the disk in KiB; 0 is unlimited.
    pub(crate) capacity_kib: u16,
    pub(crate) open_files: u8,
    /// Probability that a sync fails.
    pub(crate) sync_per_mille: u16,
    /// Difference of the clocks of successive processes in microseconds; may be negative.
    pub(crate) skew_micros: i64,
    pub(crate) rounds: Vec<Round>,
}

impl Script {
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let drop_oldest = r.chance(20);
        let budget = drop_oldest || r.chance(10);
        let settings = LogSettings {
            compressed: r.chance(50),
            chain_depth_max: if r.chance(30) { 0 } else { 1 + r.below(3) as u8 },
            disk_kib_max: if budget { 20 + r.below(40) as u16 } else { 0 },
            drop_oldest,
            open_files_max: if r.chance(30) { 1 + r.below(3) as u32 } else { 256 },
            // From a second generator, so that the rest of a script does not depend on it.
            on_demand: on_demand(&mut Random::new(!seed)),
        };
        let keys = [3, 8, 24][r.below(3) as usize];
        let rounds = 1 + r.below(3);
        let rounds = (0..rounds).map(|_| Round::random(r, keys)).collect();
        Self {
            seed: r.next_u64(),
            settings,
            switch_percent: [5, 20, 50, 90][r.below(4) as usize],
            short_per_mille: if r.chance(25) { 100 } else { 0 },
            interrupted_per_mille: if r.chance(15) { 50 } else { 0 },
            capacity_kib: if r.chance(15) { 12 + r.below(40) as u16 } else { 0 },
            open_files: if r.chance(10) { 8 + r.below(4) as u8 } else { 0 },
            skew_micros: match r.below(6) {
                0 => 86_400_000_000,
                1 => -86_400_000_000,
                2 => 3,
                _ => 0,
            },
            // The last choice, so that the rest of a script does not depend on it.
            sync_per_mille: if r.chance(5) { 50 } else { 0 },
            rounds,
        }
    }

    /// Like [`random`](Self::random), but always with a small budget that drops the oldest values.
    pub(crate) fn random_dropping(seed: u64) -> Self {
        let mut script = Self::random(seed);
        script.settings.drop_oldest = true;
        script.settings.disk_kib_max = 16 + (seed % 8) as u16;
        script
    }
}

/// Chooses the processes that read the index as needed, often none: they store no deltas.
fn on_demand(r: &mut Random) -> u8 {
    if r.chance(40) { 0 } else { r.next_u64() as u8 }
}

impl Round {
    fn random(r: &mut Random, keys: u64) -> Self {
        let processes = 1 + r.below(4);
        let mut all = Vec::new();
        let mut total = 0;
        for _ in 0..processes {
            let most = [6, 20, 50][r.below(3) as usize];
            let count = 1 + r.below(most);
            total += count;
            let compacts = 2 + r.below(15);
            all.push((0..count).map(|_| Op::random(r, keys, compacts)).collect());
        }
        let steps = total * 8;
        let crash = match r.below(10) {
            0..3 => Crash::None,
            3..6 => Crash::Kill { process: r.below(processes) as u8, step: r.below(steps) as u32 },
            _ => Crash::Power { step: r.below(steps) as u32, unsynced: r.below(6) as u8 },
        };
        Self { processes: all, crash }
    }
}

impl Op {
    fn random(r: &mut Random, keys: u64, compacts: u64) -> Self {
        let key = r.below(keys) as u8;
        let len = [20, 200, 700, 1500][r.below(4) as usize] + r.below(30) as u16;
        match r.below(100) {
            0..34 => Self::Put { key, len },
            34..46 => Self::PutDelta { key, len, base: r.below(keys) as u8 },
            46..54 => Self::Remove { key },
            54..59 => Self::WriteBatch { first: key, count: 2 + r.below(3) as u8, len: len.min(300) },
            59..63 => Self::Increment { counter: r.below(2) as u8 },
            63..71 => Self::Get { key },
            71..81 => Self::Flush,
            81..87 => Self::Refresh,
            87 => Self::TrainDictionary,
            88 => Self::Reopen,
            n if n < 89 + compacts.min(11) => Self::Compact,
            _ => Self::Put { key, len },
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, .. } = self;
        let head = Self { rounds: Vec::new(), ..self.clone() };
        writeln!(f, "{head:?}")?;
        for round in rounds {
            writeln!(f, "round, {:?}:", round.crash)?;
            for (number, process) in round.processes.iter().enumerate() {
                writeln!(f, "  process {number}: {process:?}")?;
            }
        }
        Ok(())
    }
}
