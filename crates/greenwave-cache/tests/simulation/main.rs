//! Simulation tests of disk backends: several processes interleaved at every file operation, with
//! crashes, full disks and size limits. A value may disappear at any time, but is never that of
//! another key, and never older than a value that replaced or removed it.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod leases;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use greenwave_cache::{Backend, BoxError, DiskBackend, DiskOptions, Key};
use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced};
use greenwave_testkit::random::Random;
use greenwave_testkit::simulation;

/// Environment variable with the number of seeds to run and, optionally, the first one: `COUNT` or
/// `COUNT@FIRST`.
const SEEDS: &str = "GREENWAVE_SIMULATION_SEEDS";
const DIR: &str = "/cache";
const KEYS: u8 = 6;
/// Step limit. A run that exceeds it is stuck.
const STEPS_MAX: u64 = 400_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Put { key: u8, len: u16 },
    Remove { key: u8 },
    Get { key: u8 },
    GetMany,
    List,
    Flush,
    Close,
    Reopen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    None,
    Kill { process: u8, step: u32 },
    Power { step: u32, retained: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    processes: Vec<Vec<Op>>,
    crash: Crash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Script {
    seed: u64,
    compress: bool,
    /// Disk limit in KiB; 0 means no limit.
    disk_kib_max: u16,
    capacity_kib: u16,
    switch_percent: u8,
    short_per_mille: u16,
    skew_micros: i64,
    rounds: Vec<Round>,
}

impl Script {
    fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let rounds = 1 + r.below(3);
        Self {
            seed: r.next_u64(),
            compress: r.chance(50),
            disk_kib_max: if r.chance(50) { 17 + r.below(40) as u16 } else { 0 },
            capacity_kib: if r.chance(15) { 12 + r.below(40) as u16 } else { 0 },
            switch_percent: [5, 20, 50, 90][r.below(4) as usize],
            short_per_mille: if r.chance(25) { 100 } else { 0 },
            skew_micros: [86_400_000_000, -86_400_000_000, 3, 0, 0, 0][r.below(6) as usize],
            rounds: (0..rounds).map(|_| Round::random(r)).collect(),
        }
    }
}

impl Round {
    fn random(r: &mut Random) -> Self {
        let processes: Vec<Vec<Op>> =
            (0..1 + r.below(4)).map(|_| (0..1 + r.below(25)).map(|_| Op::random(r)).collect()).collect();
        let steps = 8 * processes.iter().map(|ops| ops.len() as u64).sum::<u64>();
        let crash = match r.below(10) {
            0..3 => Crash::None,
            3..6 => {
                Crash::Kill { process: r.below(processes.len() as u64) as u8, step: r.below(steps) as u32 }
            }
            _ => Crash::Power { step: r.below(steps) as u32, retained: r.below(6) as u8 },
        };
        Self { processes, crash }
    }
}

impl Op {
    fn random(r: &mut Random) -> Self {
        let key = r.below(KEYS.into()) as u8;
        match r.below(100) {
            0..38 => Self::Put { key, len: [20, 300, 900, 2500][r.below(4) as usize] },
            38..50 => Self::Remove { key },
            50..75 => Self::Get { key },
            75..80 => Self::GetMany,
            80..84 => Self::List,
            84..92 => Self::Flush,
            92..95 => Self::Close,
            _ => Self::Reopen,
        }
    }
}

/// A change of one key.
#[derive(Debug, Clone)]
struct KeyChange {
    value: Option<Bytes>,
    handle: usize,
    began: u64,
    /// Time at which the call returned or its process ended.
    ended: Option<u64>,
    /// Whether all later readers must see the change.
    counts: bool,
    flushed: bool,
}

#[derive(Debug, Default)]
struct Oracle {
    changes: BTreeMap<u8, Vec<KeyChange>>,
    events: u64,
    handles: usize,
    values: u64,
    wrong: Option<String>,
    answers: u64,
    hits: u64,
}

impl Oracle {
    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn begin(&mut self, key: u8, value: Option<Bytes>, handle: usize) -> usize {
        let began = self.event();
        let changes = self.changes.entry(key).or_default();
        changes.push(KeyChange { value, handle, began, ended: None, counts: false, flushed: false });
        changes.len() - 1
    }

    fn end(&mut self, key: u8, number: usize, counts: bool) {
        let now = self.event();
        let change = &mut self.changes.get_mut(&key).unwrap()[number];
        (change.ended, change.counts) = (Some(now), counts);
    }

    fn flushed(&mut self, handle: usize, began: u64) {
        for change in self.changes.values_mut().flatten().filter(|change| change.handle == handle) {
            change.flushed |= change.counts && change.ended.is_some_and(|ended| ended < began);
        }
    }

    /// Ends all processes. After a power cut, unflushed changes may be lost.
    fn all_ended(&mut self, cut: bool) {
        let now = self.event();
        for change in self.changes.values_mut().flatten() {
            change.ended.get_or_insert(now);
            change.counts &= !cut || change.flushed;
        }
    }

    fn check(&mut self, key: u8, got: Option<&Bytes>, began: u64) {
        self.answers += 1;
        self.hits += u64::from(got.is_some());
        let Some(got) = got else { return };
        let none = Vec::new();
        let changes = self.changes.get(&key).unwrap_or(&none);
        let over = |change: &KeyChange| {
            let newer = |other: &&KeyChange| {
                other.counts
                    && other.ended.is_some_and(|ended| ended <= began)
                    && change.ended.is_some_and(|ended| ended < other.began)
            };
            changes.iter().any(|other| newer(&other))
        };
        if !changes.iter().any(|change| change.value.as_ref() == Some(got) && !over(change)) {
            let number = got.first_chunk::<8>().map(|number| u64::from_le_bytes(*number));
            let history: Vec<String> = changes.iter().map(|c| format!("\n    {c:?}")).collect();
            let head = format!("key {key} is value {number:?}, read from {began} on");
            self.wrong.get_or_insert(format!("{head}:{}", history.concat()));
        }
    }

    /// Records the state after a power cut: only the visible value remains possible.
    fn settle(&mut self, key: u8, got: Option<Bytes>) {
        let now = self.event();
        let change =
            KeyChange { value: got, handle: 0, began: now, ended: Some(now), counts: true, flushed: true };
        self.changes.insert(key, vec![change]);
    }
}

type Shared = Rc<RefCell<Oracle>>;

/// Runs a future that waits for the simulated disk only, which never blocks.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a call waits for another call"),
    }
}

fn open(process: &Process, script: &Script) -> Result<DiskBackend, greenwave_cache::Error> {
    let disk_bytes_max = (script.disk_kib_max > 0).then(|| u64::from(script.disk_kib_max) << 10);
    DiskBackend::open_simulated(process, DIR, DiskOptions { disk_bytes_max, compress: script.compress })
}

fn key_of(number: u8) -> Key {
    Key::from_bytes([number; 32])
}

fn process(machine: &Process, script: &Script, ops: &[Op], oracle: &Shared) {
    let handle = || {
        let mut oracle = oracle.borrow_mut();
        oracle.handles += 1;
        oracle.handles
    };
    let mut number = handle();
    let Ok(mut backend) = open(machine, script) else { return };
    for op in ops {
        if *op == Op::Reopen {
            drop(backend);
            number = handle();
            backend = match open(machine, script) {
                Ok(backend) => backend,
                Err(_) => return,
            };
            continue;
        }
        if let Err(error) = perform(number, &backend, *op, oracle) {
            refused(&error, oracle);
        }
    }
}

fn refused(error: &BoxError, oracle: &Shared) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let fair = [
        "no storage space",
        "exceed its limit",
        "was killed",
        "an earlier sync failed",
        "keep storing deltas from it",
    ];
    if !fair.iter().any(|fair| text.contains(fair)) {
        oracle.borrow_mut().wrong.get_or_insert(format!("failed: {text}"));
    }
}

fn perform(handle: usize, backend: &DiskBackend, op: Op, oracle: &Shared) -> Result<(), BoxError> {
    match op {
        Op::Put { key, len } => {
            let (value, number) = {
                let mut oracle = oracle.borrow_mut();
                oracle.values += 1;
                let mut bytes = oracle.values.to_le_bytes().to_vec();
                let mut random = Random::new(oracle.values);
                bytes.extend(std::iter::repeat_with(|| random.next_u64() as u8).take(len.into()));
                let value = Bytes::from(bytes);
                (value.clone(), oracle.begin(key, Some(value), handle))
            };
            let result = block_on(backend.put(&key_of(key), value, None));
            oracle.borrow_mut().end(key, number, result.is_ok());
            result?;
        }
        Op::Remove { key } => {
            let number = oracle.borrow_mut().begin(key, None, handle);
            let result = block_on(backend.remove(&key_of(key)));
            oracle.borrow_mut().end(key, number, result.is_ok());
            result?;
        }
        Op::Get { key } => {
            let began = oracle.borrow_mut().event();
            let got = block_on(backend.get(&key_of(key)))?;
            oracle.borrow_mut().check(key, got.as_ref(), began);
        }
        Op::GetMany => {
            let began = oracle.borrow_mut().event();
            let keys: Vec<Key> = (0..KEYS).map(key_of).collect();
            let got = block_on(backend.get_many(&keys))?;
            (0..KEYS).zip(got).for_each(|(key, got)| oracle.borrow_mut().check(key, got.as_ref(), began));
        }
        Op::List => {
            let began = oracle.borrow_mut().event();
            for key in block_on(backend.list())? {
                let got = block_on(backend.get(&key))?;
                oracle.borrow_mut().check(key.as_bytes()[0], got.as_ref(), began);
            }
        }
        Op::Flush => {
            let began = oracle.borrow_mut().event();
            block_on(backend.flush())?;
            oracle.borrow_mut().flushed(handle, began);
        }
        Op::Close => {
            let began = oracle.borrow_mut().event();
            block_on(backend.close())?;
            oracle.borrow_mut().flushed(handle, began);
        }
        Op::Reopen => {}
    }
    Ok(())
}

/// Runs a script. Returns the numbers of reads and hits, or a description of the failure, including
/// a panic.
fn run(script: &Script) -> Result<(u64, u64), String> {
    std::panic::catch_unwind(|| run_unguarded(script)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn run_unguarded(script: &Script) -> Result<(u64, u64), String> {
    let oracle: Shared = Rc::default();
    let machine = Machine::new(script.seed);
    let mut random = Random::new(script.seed);
    for round in &script.rounds {
        let cut = run_round(script, round, &machine, &mut random, &oracle)?;
        machine.set_faults(Faults::default());
        oracle.borrow_mut().all_ended(cut);
        let began = oracle.borrow_mut().event();
        let process = machine.process();
        let backend = open(&process, script).map_err(|error| format!("cannot be opened: {error:?}"))?;
        for key in 0..KEYS {
            let got =
                block_on(backend.get(&key_of(key))).map_err(|error| format!("cannot be read: {error:?}"))?;
            oracle.borrow_mut().check(key, got.as_ref(), began);
            if cut {
                oracle.borrow_mut().settle(key, got);
            }
        }
        drop(backend);
        process.kill();
        oracle.borrow_mut().wrong.take().map_or(Ok(()), Err)?;
    }
    let oracle = oracle.borrow();
    Ok((oracle.answers, oracle.hits))
}

/// Runs one round. Returns whether the power was cut.
fn run_round(
    script: &Script,
    round: &Round,
    machine: &Machine,
    random: &mut Random,
    oracle: &Shared,
) -> Result<bool, String> {
    let capacity = u64::from(script.capacity_kib) << 10;
    machine.set_faults(Faults { short: script.short_per_mille, capacity, ..Faults::default() });
    let mut schedule = Schedule::new();
    for (who, ops) in round.processes.iter().enumerate() {
        let one = machine.process();
        one.set_clock_ahead(script.skew_micros * 1000 * who as i64);
        let (script, ops, oracle) = (script.clone(), ops.clone(), oracle.clone());
        schedule.spawn(&one.clone(), move || process(&one, &script, &ops, &oracle));
    }
    let (mut current, mut step) = (0, 0_u64);
    while let Some(runnable) = schedule.runnable() {
        match round.crash {
            Crash::Kill { process, step: at } if u64::from(at) == step => schedule.kill(process.into()),
            Crash::Power { step: at, retained } if u64::from(at) == step => {
                machine.cut_power(match retained {
                    0 => Unsynced::All,
                    1 => Unsynced::None,
                    _ => Unsynced::Some,
                });
                drop(schedule);
                return oracle.borrow_mut().wrong.take().map_or(Ok(true), Err);
            }
            _ => {}
        }
        if schedule.has_finished(current)
            || !runnable.contains(&current)
            || random.chance(script.switch_percent.into())
        {
            current = runnable[random.below(runnable.len() as u64) as usize];
        }
        schedule.step(current);
        step += 1;
        oracle.borrow_mut().wrong.take().map_or(Ok(()), Err)?;
        if step > STEPS_MAX {
            return Err("it does not end".into());
        }
    }
    Ok(false)
}

/// Returns scripts with one round, or a range of operations, less.
fn smaller(script: &Script) -> Vec<Script> {
    let mut candidates = Vec::new();
    for round in 0..script.rounds.len() {
        let mut less = script.clone();
        less.rounds.remove(round);
        candidates.push(less);
        for process in 0..script.rounds[round].processes.len() {
            for range in simulation::removable_ranges(script.rounds[round].processes[process].len()) {
                let mut less = script.clone();
                less.rounds[round].processes[process].drain(range);
                candidates.push(less);
            }
        }
    }
    candidates
}

#[test]
fn values_are_never_older_than_their_replacements() {
    let seeds = simulation::seeds(SEEDS, 200);
    let (count, first) = (seeds.end - seeds.start, seeds.start);
    let (mut answers, mut hits) = (0, 0);
    for seed in seeds {
        match run(&Script::random(seed)) {
            Ok(done) => (answers, hits) = (answers + done.0, hits + done.1),
            Err(why) => {
                let run = |script: &Script| run(script).map(drop);
                let (shrunk, then) = simulation::shrink(Script::random(seed), &why, run, smaller);
                panic!("seed {seed}: {why}\n\nshrunk to {shrunk:#?}: {then}");
            }
        }
    }
    println!("{count} schedules from seed {first} on: {answers} answers, {hits} hits");
    assert!(hits > 0);
}

#[test]
fn a_flush_makes_removals_durable_that_were_written_before() {
    let machine = Machine::new(1);
    let open = || {
        let options = DiskOptions { compress: false, ..DiskOptions::default() };
        DiskBackend::open_simulated(&machine.process(), "/cache", options).unwrap()
    };
    let (one, two, key) = (open(), open(), key_of(1));
    block_on(one.put(&key, Bytes::from_static(b"value"), None)).unwrap();
    block_on(one.flush()).unwrap();
    block_on(one.remove(&key)).unwrap();
    block_on(two.remove(&key)).unwrap();
    block_on(two.flush()).unwrap();
    machine.cut_power(Unsynced::None);
    drop((one, two));
    assert_eq!(block_on(open().get(&key)).unwrap(), None);
}
