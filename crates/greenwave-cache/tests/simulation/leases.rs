//! Simulated processes that compute results under leases, interleaved at every file operation and
//! inside each computation, and killed. No two of them compute a key at the same time, and none
//! computes a key again that another one has stored.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{
    BoxError, DiskBackend, DiskOptions, Key, Lease, Leases, Persist, Record, Tier, Tiered, TieredOptions,
};
use greenwave_segment::simulation::{Machine, Process, Schedule, Unsynced, pause};
use greenwave_segment::{Log, Options};
use greenwave_testkit::random::Random;
use greenwave_testkit::simulation;

use crate::{SEEDS, STEPS_MAX, block_on, key_of};

const KEYS: u8 = 3;

/// Leases as locked files on the simulated disk, like [`FileLeases`](greenwave_cache::FileLeases)
/// on systems without locks of byte ranges: the system releases them when a process is killed.
#[derive(Debug)]
struct SimulatedLeases(Log);

#[async_trait]
impl Leases for SimulatedLeases {
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError> {
        loop {
            match self.0.hold(key.as_bytes()[0].into()) {
                Ok(hold) => return Ok(Lease::new(hold)),
                // Waits without returning to the caller: a simulated process has no timers.
                Err(greenwave_segment::Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    pause();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Crash {
    None,
    Kill { process: usize, step: u64 },
    Power { step: u64 },
}

#[derive(Debug)]
struct Script {
    seed: u64,
    switch_percent: u64,
    /// Keys that each process needs, in this order.
    processes: Vec<Vec<u8>>,
    crash: Crash,
}

impl Script {
    fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let processes: Vec<Vec<u8>> = (0..2 + r.below(3))
            .map(|_| (0..1 + r.below(8)).map(|_| r.below(KEYS.into()) as u8).collect())
            .collect();
        let steps = 40 * processes.len() as u64;
        let crash = match r.below(4) {
            0 => Crash::None,
            1 => Crash::Power { step: r.below(steps) },
            _ => Crash::Kill { process: r.below(processes.len() as u64) as usize, step: r.below(steps) },
        };
        Self { seed: r.next_u64(), switch_percent: [5, 20, 50, 90][r.below(4) as usize], processes, crash }
    }
}

/// Computations of a run, and the expected results.
#[derive(Debug, Default)]
struct Oracle {
    /// Process that computes each key.
    computing: BTreeMap<u8, usize>,
    /// Result of each key that was stored and whose lease was released.
    stored: BTreeMap<u8, Bytes>,
    killed: BTreeSet<usize>,
    computed: u64,
    hits: u64,
    wrong: Option<String>,
}

impl Oracle {
    fn report(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

type Shared = Rc<RefCell<Oracle>>;

fn open(machine: &Process) -> Option<Tiered> {
    let options = DiskOptions { disk_bytes_max: None, compress: false };
    let disk = Tier::new("disk", Arc::new(DiskBackend::open_simulated(machine, "/results", options).ok()?));
    let options = Options { clock: greenwave_segment::simulation::clock, ..Options::default() };
    let leases = SimulatedLeases(Log::open_simulated(machine, "/leases", options).ok()?);
    // The clock of the records is the simulated one, too.
    let clock = || greenwave_segment::simulation::clock() / 1_000_000;
    let options = TieredOptions { leases: Some(Arc::new(leases)), clock, ..TieredOptions::new(1) };
    Some(Tiered::new(vec![disk], options))
}

fn process(who: usize, machine: &Process, keys: &[u8], oracle: &Shared) {
    let Some(tiered) = open(machine) else { return };
    for key in keys {
        if oracle.borrow().killed.contains(&who) {
            return;
        }
        let computed_here = RefCell::new(false);
        let compute = || async {
            computed_here.replace(true);
            Ok::<_, Infallible>((compute(who, *key, oracle), Persist::Yes))
        };
        let result = block_on(tiered.get_or_compute(&key_of(*key), compute));
        let mut oracle = oracle.borrow_mut();
        if oracle.killed.contains(&who) {
            return;
        }
        let record = result.unwrap();
        oracle.hits += u64::from(!computed_here.into_inner());
        match oracle.stored.get(key).filter(|stored| **stored != record.payload) {
            Some(stored) => {
                let what = format!("process {who} got {:?} for key {key}: {stored:?}", record.payload);
                oracle.report(what);
            }
            None => drop(oracle.stored.insert(*key, record.payload)),
        }
    }
}

/// Computes the record of a key, in several steps.
fn compute(who: usize, key: u8, oracle: &Shared) -> Record {
    {
        let mut oracle = oracle.borrow_mut();
        if !oracle.killed.contains(&who) {
            if let Some(other) = oracle.computing.insert(key, who) {
                oracle.report(format!("processes {other} and {who} compute key {key} at the same time"));
            }
            if oracle.stored.contains_key(&key) {
                oracle.report(format!("process {who} computes key {key}, which is stored"));
            }
        }
        oracle.computed += 1;
    }
    (0..3).for_each(|_| pause());
    let mut oracle = oracle.borrow_mut();
    if !oracle.killed.contains(&who) {
        oracle.computing.remove(&key);
    }
    let payload = Bytes::from(format!("{key} {}", oracle.computed));
    Record { schema: 1, created_ms: 1 << 40, cost: Duration::ZERO, tags: Vec::new(), payload }
}

fn run(script: &Script) -> Result<(u64, u64), String> {
    let oracle: Shared = Rc::default();
    let machine = Machine::new(script.seed);
    let mut random = Random::new(script.seed);
    let mut schedule = Schedule::new();
    for (who, keys) in script.processes.iter().enumerate() {
        let one = machine.process();
        let (keys, oracle) = (keys.clone(), oracle.clone());
        schedule.spawn(&one.clone(), move || process(who, &one, &keys, &oracle));
    }
    let (mut current, mut step) = (0, 0_u64);
    while let Some(runnable) = schedule.runnable() {
        match script.crash {
            Crash::Kill { process, step: at } if at == step => {
                {
                    let mut oracle = oracle.borrow_mut();
                    oracle.killed.insert(process);
                    oracle.computing.retain(|_, who| *who != process);
                }
                schedule.kill(process);
            }
            Crash::Power { step: at } if at == step => {
                oracle.borrow_mut().killed.extend(0..script.processes.len());
                machine.cut_power(Unsynced::Some);
                drop(schedule);
                return check_end(&machine, &oracle, true);
            }
            _ => {}
        }
        if schedule.has_finished(current)
            || !runnable.contains(&current)
            || random.chance(script.switch_percent)
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
    drop(schedule);
    check_end(&machine, &oracle, false)
}

/// Checks that no lease remains, and that a new process computes only the missing results.
fn check_end(machine: &Machine, oracle: &Shared, cut: bool) -> Result<(u64, u64), String> {
    {
        let mut oracle = oracle.borrow_mut();
        oracle.wrong.take().map_or(Ok(()), Err)?;
        oracle.computing.clear();
        if cut {
            // No result was flushed, so all of them may be lost.
            oracle.stored.clear();
        }
    }
    let last = machine.process();
    process(usize::MAX, &last, &(0..KEYS).collect::<Vec<_>>(), oracle);
    let mut oracle = oracle.borrow_mut();
    oracle.wrong.take().map_or(Ok(()), Err)?;
    if oracle.stored.len() != usize::from(KEYS) {
        return Err("a key has no result".into());
    }
    Ok((oracle.computed, oracle.hits))
}

#[test]
fn one_process_at_a_time_computes_a_key_and_others_find_its_result() {
    // Provides the timer of `lease_wait_max`, which never ends: no time passes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let seeds = simulation::seeds(SEEDS, 400);
    let (count, first) = (seeds.end - seeds.start, seeds.start);
    let (mut computed, mut hits) = (0, 0);
    for seed in seeds {
        let script = Script::random(seed);
        let done = run(&script).unwrap_or_else(|why| panic!("seed {seed}: {why}\n{script:#?}"));
        (computed, hits) = (computed + done.0, hits + done.1);
    }
    println!("{count} schedules with leases from seed {first} on: {computed} computed, {hits} hits");
    assert!(hits > computed / 2);
}
