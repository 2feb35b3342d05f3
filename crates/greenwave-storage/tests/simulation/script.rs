//! Scripts for simulations: the operations of stores and the faults of the machine, which can be
//! generated, shrunk and printed.

use std::fmt;

use greenwave_testkit::random::Random;

/// Contents to put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Contents that no other operation puts.
    New { len: u16 },
    /// Contents from a small set that all stores put.
    Common(u8),
}

/// An operation of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Put { name: u8, contents: Contents },
    PutWithBase { name: u8, contents: Contents, base: u8 },
    PutUnnamed { contents: Contents },
    Link { name: u8, to: u8 },
    Remove { name: u8 },
    Get { name: u8 },
    GetUnnamed,
    List,
    Record { feature: u8, contents: Contents },
    Sweep,
    Flush,
    Compact,
    Close,
    Reopen,
}

/// Options of the stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) compressed: bool,
    pub(crate) find_similar: bool,
    /// Limit in KiB; 0 means no limit.
    pub(crate) disk_kib_max: u16,
    pub(crate) segment_kib_max: u8,
}

/// Fault that happens after a number of steps of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// No fault: the processes run to completion.
    None,
    /// One process is killed, and the others continue.
    Kill { process: u8, step: u32 },
    /// All processes end, and unsynced data is preserved, lost, or partially preserved.
    Power { step: u32, retained: u8 },
}

/// Processes that run concurrently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) processes: Vec<Vec<Op>>,
    pub(crate) crash: Crash,
}

/// A complete run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Seed of interleavings, faults and the effects of power failures.
    pub(crate) seed: u64,
    pub(crate) setting: Setting,
    /// Probability in percent that another process continues after a step.
    pub(crate) switch_percent: u8,
    pub(crate) short_per_mille: u16,
    pub(crate) interrupted_per_mille: u16,
    /// Size of the disk in KiB; 0 means no limit.
    pub(crate) capacity_kib: u16,
    /// Clock skew between processes in microseconds, multiplied by their number. May be negative.
    pub(crate) skew_micros: i64,
    pub(crate) rounds: Vec<Round>,
}

impl Script {
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let setting = Setting {
            compressed: r.chance(50),
            find_similar: r.chance(50),
            disk_kib_max: if r.chance(20) { 40 + r.below(80) as u16 } else { 0 },
            segment_kib_max: [4, 16, 64][r.below(3) as usize],
        };
        let names = [2, 6][r.below(2) as usize];
        // Large enough for memory to overflow.
        let large = r.chance(25);
        let rounds = 1 + r.below(3);
        let rounds = (0..rounds).map(|_| Round::random(r, names, large)).collect();
        Self {
            seed: r.next_u64(),
            setting,
            switch_percent: [5, 20, 50, 90][r.below(4) as usize],
            short_per_mille: if r.chance(25) { 100 } else { 0 },
            interrupted_per_mille: if r.chance(15) { 50 } else { 0 },
            capacity_kib: if r.chance(15) { 30 + r.below(100) as u16 } else { 0 },
            skew_micros: match r.below(6) {
                0 => 86_400_000_000,
                1 => -86_400_000_000,
                2 => 3,
                _ => 0,
            },
            rounds,
        }
    }
}

impl Round {
    fn random(r: &mut Random, names: u64, large: bool) -> Self {
        let processes = 1 + r.below(3);
        let mut all = Vec::new();
        let mut total = 0;
        for _ in 0..processes {
            let most = [6, 15, 30][r.below(3) as usize];
            let count = 1 + r.below(most);
            total += count;
            all.push((0..count).map(|_| Op::random(r, names, large)).collect());
        }
        let steps = total * 12;
        let crash = match r.below(10) {
            0..3 => Crash::None,
            3..6 => Crash::Kill { process: r.below(processes) as u8, step: r.below(steps) as u32 },
            _ => Crash::Power { step: r.below(steps) as u32, retained: r.below(6) as u8 },
        };
        Self { processes: all, crash }
    }
}

impl Op {
    fn random(r: &mut Random, names: u64, large: bool) -> Self {
        let name = r.below(names) as u8;
        let len = if large { 6000 + r.below(9000) } else { [20, 300, 900, 2000][r.below(4) as usize] };
        let contents = if r.chance(50) {
            Contents::New { len: len as u16 + r.below(30) as u16 }
        } else {
            Contents::Common(r.below(3) as u8)
        };
        match r.below(100) {
            0..24 => Self::Put { name, contents },
            24..30 => Self::PutWithBase { name, contents, base: r.below(names) as u8 },
            30..36 => Self::PutUnnamed { contents },
            36..40 => Self::Link { name, to: r.below(names) as u8 },
            40..48 => Self::Remove { name },
            48..60 => Self::Get { name },
            60..64 => Self::GetUnnamed,
            64..66 => Self::List,
            66..69 => Self::Record { feature: r.below(2) as u8, contents },
            69..77 => Self::Sweep,
            77..92 => Self::Flush,
            92..94 => Self::Compact,
            94..96 => Self::Close,
            _ => Self::Reopen,
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
