//! Runs a script on a simulated machine, checks every result, and shrinks failing scripts.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced};
use greenwave_storage::{
    AttemptOutcome, Attempts, BlobId, Compression, Error, NewAttempt, SegmentColdTier, SegmentOptions, Store,
    StoreOptions,
};

use crate::model::{Handle, Model};
use greenwave_testkit::random::Random;
use greenwave_testkit::simulation;

use crate::script::{Contents, Crash, Op, Round, Script, Setting};

const DIR: &str = "/store";
/// Step limit. A run that exceeds it is stuck.
const STEPS_MAX: u64 = 400_000;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    steps: u64,
    operations: u64,
    answers: u64,
    crashes: u64,
    failed_operations: u64,
    swept: u64,
    freed: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.operations += other.operations;
        self.answers += other.answers;
        self.crashes += other.crashes;
        self.failed_operations += other.failed_operations;
        self.swept += other.swept;
        self.freed += other.freed;
    }
}

/// State shared by all processes of a run with the checks.
#[derive(Debug, Default)]
struct Oracle {
    model: Model,
    wrong: Option<String>,
    totals: Totals,
    contents: u64,
    /// Handle of the store that each process has open.
    handles: BTreeMap<usize, Handle>,
}

impl Oracle {
    fn open(&mut self, who: usize) -> Handle {
        let handle = self.model.handle();
        self.handles.insert(who, handle);
        handle
    }

    fn report_failure(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Returns contents: a number, followed by incompressible bytes that are the same in every
    /// third.
    fn contents(&mut self, contents: Contents, large: bool) -> Bytes {
        let (number, len) = match contents {
            Contents::New { len } => {
                self.contents += 1;
                (self.contents, len)
            }
            Contents::Common(number) => (1_000_000 + u64::from(number), if large { 9000 } else { 500 }),
        };
        let mut bytes = number.to_le_bytes().to_vec();
        let mut random = Random::new(number % 3);
        bytes.extend(std::iter::repeat_with(|| random.next_u64() as u8).take(len.into()));
        bytes.into()
    }
}

type SharedOracle = Rc<RefCell<Oracle>>;

/// Runs a future that waits for the simulated disk only, which never blocks.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a call waits for another one"),
    }
}

fn open(process: &Process, setting: &Setting) -> Result<Store, Error> {
    let options = SegmentOptions {
        compression: if setting.compressed { Compression::Zstd { level: 1 } } else { Compression::None },
        disk_bytes_max: (setting.disk_kib_max > 0).then(|| u64::from(setting.disk_kib_max) << 10),
        segment_bytes_max: u64::from(setting.segment_kib_max) << 10,
        delta_chain_max: 2,
        find_similar: setting.find_similar,
        ..SegmentOptions::default()
    };
    let cold = SegmentColdTier::open_simulated(process, DIR, options)?;
    Store::open(StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() }, Arc::new(cold))
}

fn name_of(number: u8) -> String {
    format!("name{number}")
}

/// Runs a process: opens the store, performs its operations, and reports each to the oracle.
fn process(who: usize, machine: &Process, setting: Setting, ops: &[Op], oracle: &SharedOracle) {
    let mut handle = oracle.borrow_mut().open(who);
    let mut store = match open(machine, &setting) {
        Ok(store) => store,
        Err(error) => return refused(&error, oracle),
    };
    for op in ops {
        oracle.borrow_mut().totals.operations += 1;
        if matches!(op, Op::Close | Op::Reopen) {
            if *op == Op::Close {
                close(handle, &store, oracle);
            }
            drop(store);
            oracle.borrow_mut().model.ended(handle);
            handle = oracle.borrow_mut().open(who);
            store = match open(machine, &setting) {
                Ok(store) => store,
                Err(error) => return refused(&error, oracle),
            };
            continue;
        }
        perform(who, handle, &store, *op, setting, oracle);
    }
    drop(store);
    oracle.borrow_mut().model.ended(handle);
}

fn close(handle: Handle, store: &Store, oracle: &SharedOracle) {
    let began = oracle.borrow_mut().model.event();
    // Closing removes the pins.
    oracle.borrow_mut().model.swept(handle);
    match block_on(store.close()) {
        Ok(()) => oracle.borrow_mut().model.flushed(handle, began),
        Err(error) => refused(&error, oracle),
    }
}

/// Checks that a failed operation has an acceptable cause.
fn refused(error: &Error, oracle: &SharedOracle) {
    let mut oracle = oracle.borrow_mut();
    oracle.totals.failed_operations += 1;
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    // Acceptable are a full disk, an exhausted budget, and a killed process. A full disk can also
    // prevent the end of a segment from being written, after which the log must be opened again.
    let fair = [
        "no storage space",
        "exceed its limit",
        "was killed",
        "keep storing deltas from it",
        "too many concurrent sweeps",
        "an earlier sync failed",
    ];
    if !fair.iter().any(|fair| text.contains(fair)) {
        oracle.report_failure(format!("failed: {text}"));
    }
}

fn perform(who: usize, handle: Handle, store: &Store, op: Op, setting: Setting, oracle: &SharedOracle) {
    let event = || oracle.borrow_mut().model.event();
    let large = setting.disk_kib_max == 0;
    match op {
        Op::Put { name, contents } => {
            let contents = oracle.borrow_mut().contents(contents, large);
            change(handle, &name_of(name), Some(&contents), false, oracle, || {
                block_on(store.put(&name_of(name), contents.clone())).map(drop)
            });
        }
        Op::PutWithBase { name, contents, base } => {
            let contents = oracle.borrow_mut().contents(contents, large);
            let Some(base) = found(block_on(store.resolve(&name_of(base))), oracle).flatten() else { return };
            change(handle, &name_of(name), Some(&contents), false, oracle, || {
                block_on(store.put_with_base(&name_of(name), contents.clone(), &base)).map(drop)
            });
        }
        // Unnamed contents stay as long as their store is open, which an exhausted budget does not
        // allow for.
        Op::PutUnnamed { contents } if setting.disk_kib_max == 0 => {
            let contents = oracle.borrow_mut().contents(contents, large);
            if let Err(error) = block_on(store.put_blob(contents.clone())) {
                refused(&error, oracle);
            }
            oracle.borrow_mut().model.put_unnamed(handle, contents);
        }
        Op::PutUnnamed { .. } => {}
        Op::Link { name, to } => {
            let Some(to) = found(block_on(store.get(&name_of(to))), oracle).flatten() else { return };
            change(handle, &name_of(name), Some(&to), true, oracle, || {
                block_on(store.link(&name_of(name), BlobId::of(&to)))
            });
        }
        Op::Remove { name } => remove(handle, store, &name_of(name), oracle),
        Op::Get { name } => get(handle, store, &name_of(name), oracle),
        Op::GetUnnamed => get_unnamed(handle, store, oracle),
        Op::List => list(handle, store, oracle),
        Op::Record { feature, contents } => {
            let contents = oracle.borrow_mut().contents(contents, large);
            record(who, feature, store, &contents, oracle);
        }
        Op::Sweep => {
            oracle.borrow_mut().model.swept(handle);
            match block_on(store.sweep_with(|| recorded(store))) {
                Ok(removed) => oracle.borrow_mut().totals.swept += removed,
                Err(error) => refused(&error, oracle),
            }
        }
        Op::Flush => {
            let began = event();
            match block_on(store.flush()) {
                Ok(()) => oracle.borrow_mut().model.flushed(handle, began),
                Err(error) => refused(&error, oracle),
            }
        }
        Op::Compact | Op::Close | Op::Reopen => {}
    }
}

/// Checks that the contents put without a name are found.
fn get_unnamed(handle: Handle, store: &Store, oracle: &SharedOracle) {
    let expected = oracle.borrow().model.unnamed(handle);
    for contents in expected {
        let Some(got) = found(block_on(store.get_blob(&BlobId::of(&contents))), oracle) else {
            continue;
        };
        let mut oracle = oracle.borrow_mut();
        oracle.totals.answers += 1;
        if got.as_ref() != Some(&contents) && oracle.model.is_wanted(&contents) {
            oracle.report_failure(format!("unnamed contents {:?} are missing", contents.first_chunk::<8>()));
        }
    }
}

/// Checks that every name that is missing from a listing may be missing.
fn list(handle: Handle, store: &Store, oracle: &SharedOracle) {
    let began = oracle.borrow_mut().model.event();
    let Some(names) = found(block_on(store.list("name")), oracle) else { return };
    for name in (0..6).map(name_of).filter(|name| !names.contains(name)) {
        let mut oracle = oracle.borrow_mut();
        if let Err(wrong) = oracle.model.check(handle, &name, None, began) {
            oracle.report_failure(format!("not listed: {wrong}"));
        }
    }
}

fn found<T>(result: Result<T, Error>, oracle: &SharedOracle) -> Option<T> {
    result.inspect_err(|error| refused(error, oracle)).ok()
}

/// Changes a name. Contents that cannot be written stay readable, so a put that fails for that
/// reason counts as made.
fn change(
    handle: Handle,
    name: &str,
    contents: Option<&Bytes>,
    may_dangle: bool,
    oracle: &SharedOracle,
    work: impl FnOnce() -> Result<(), Error>,
) {
    oracle.borrow_mut().model.begin(handle, name, contents.cloned(), may_dangle);
    if let Err(error) = work() {
        refused(&error, oracle);
    }
    oracle.borrow_mut().model.made(handle, name);
}

fn remove(handle: Handle, store: &Store, name: &str, oracle: &SharedOracle) {
    let began = oracle.borrow_mut().model.event();
    let Some(existed) = found(block_on(store.remove(name)), oracle) else { return };
    let mut oracle = oracle.borrow_mut();
    if existed {
        // A removal does not write anything itself.
        oracle.model.begin(handle, name, None, false);
        oracle.model.made(handle, name);
    } else if let Err(wrong) = oracle.model.check(handle, name, None, began) {
        oracle.report_failure(format!("not removed: {wrong}"));
    }
}

fn get(handle: Handle, store: &Store, name: &str, oracle: &SharedOracle) {
    let began = oracle.borrow_mut().model.event();
    let Some(got) = found(block_on(store.get(name)), oracle) else { return };
    let mut oracle = oracle.borrow_mut();
    oracle.totals.answers += 1;
    if let Err(wrong) = oracle.model.check(handle, name, got.as_ref(), began) {
        oracle.report_failure(wrong);
    }
}

/// Records an attempt in this process's namespace, and reads it back.
fn record(who: usize, feature: u8, store: &Store, contents: &Bytes, oracle: &SharedOracle) {
    let attempts = Attempts::new(store.clone(), &who.to_string());
    let feature = format!("feature{feature}");
    let files = BTreeMap::from([("file".to_owned(), contents.clone())]);
    let draft =
        NewAttempt { files, outcome: AttemptOutcome::Passed, note: String::new(), ..NewAttempt::default() };
    let Some(recorded) = found(block_on(attempts.record(&feature, draft)), oracle) else { return };
    match block_on(attempts.get(&feature, recorded.number)) {
        Ok(Some(read)) if read == recorded => {}
        Ok(other) => oracle.borrow_mut().report_failure(format!("recorded {recorded:?}, read {other:?}")),
        Err(error) => refused(&error, oracle),
    }
}

/// Runs a script. Returns a description of the failure, including a panic.
pub(crate) fn run(script: &Script) -> Result<Totals, String> {
    std::panic::catch_unwind(|| run_unguarded(script)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn run_unguarded(script: &Script) -> Result<Totals, String> {
    let oracle: SharedOracle = Rc::default();
    let machine = Machine::new(script.seed);
    if TRACED.get() {
        machine.record();
    }
    let traced = Traced(&machine);
    let mut random = Random::new(script.seed);
    for round in &script.rounds {
        let cut = run_round(script, round, &machine, &mut random, &oracle)?;
        oracle.borrow_mut().model.all_ended();
        judge(script, &machine, &oracle, cut)?;
    }
    free(script, &machine, &oracle)?;
    let totals = oracle.borrow().totals;
    drop(traced);
    Ok(totals)
}

thread_local! {
    /// Whether runs on this thread print every file operation at the end.
    pub(crate) static TRACED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Prints the trace of a machine on drop.
struct Traced<'a>(&'a Machine);

impl Drop for Traced<'_> {
    fn drop(&mut self) {
        if TRACED.get() {
            println!("{}", self.0.trace().join("\n"));
        }
    }
}

/// Runs one round. Returns whether the power was cut.
fn run_round(
    script: &Script,
    round: &Round,
    machine: &Machine,
    random: &mut Random,
    oracle: &SharedOracle,
) -> Result<bool, String> {
    machine.set_faults(Faults {
        interrupted: script.interrupted_per_mille,
        short: script.short_per_mille,
        capacity: u64::from(script.capacity_kib) << 10,
        ..Faults::default()
    });
    let mut schedule = Schedule::new();
    for (who, ops) in round.processes.iter().enumerate() {
        let process_of = machine.process();
        process_of.set_clock_ahead(script.skew_micros * 1000 * who as i64);
        let (setting, ops, oracle) = (script.setting, ops.clone(), oracle.clone());
        schedule.spawn(&process_of.clone(), move || process(who, &process_of, setting, &ops, &oracle));
    }
    let mut current = 0;
    let mut step = 0_u64;
    while let Some(runnable) = schedule.runnable() {
        match round.crash {
            Crash::Kill { process, step: at } if u64::from(at) == step => {
                schedule.kill(process.into());
                let mut oracle = oracle.borrow_mut();
                oracle.totals.crashes += 1;
                if let Some(handle) = oracle.handles.get(&process.into()).copied() {
                    oracle.model.ended(handle);
                }
            }
            Crash::Power { step: at, retained } if u64::from(at) == step => {
                machine.cut_power(unsynced(retained));
                drop(schedule);
                let mut oracle = oracle.borrow_mut();
                oracle.totals.crashes += 1;
                return oracle.wrong.take().map_or(Ok(true), Err);
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
        oracle.borrow_mut().totals.steps += 1;
        if let Some(wrong) = oracle.borrow_mut().wrong.take() {
            return Err(wrong);
        }
        if step > STEPS_MAX {
            return Err("it does not end".into());
        }
    }
    Ok(false)
}

fn unsynced(retained: u8) -> Unsynced {
    match retained {
        0 => Unsynced::All,
        1 => Unsynced::None,
        _ => Unsynced::Some,
    }
}

/// Opens a store on a disk without faults, and checks each name before and after a sweep.
fn judge(script: &Script, machine: &Machine, oracle: &SharedOracle, cut: bool) -> Result<(), String> {
    machine.set_faults(Faults::default());
    let reader = oracle.borrow_mut().model.handle();
    let began = oracle.borrow_mut().model.event();
    let mut first: Option<BTreeMap<String, Option<Bytes>>> = None;
    for swept in [false, true] {
        let process = machine.process();
        let afterwards = |error: Error| format!("afterwards, swept {swept}: {error:?}");
        let store = open(&process, &script.setting).map_err(afterwards)?;
        if swept {
            block_on(store.sweep_with(|| recorded(&store))).map_err(afterwards)?;
        }
        let mut answers = BTreeMap::new();
        for name in (0..6).map(name_of) {
            let got = block_on(store.get(&name)).map_err(afterwards)?;
            let checked = oracle.borrow().model.check(reader, &name, got.as_ref(), began);
            checked.map_err(|wrong| format!("afterwards, swept {swept}: {wrong}"))?;
            answers.insert(name, got);
        }
        if first.as_ref().is_some_and(|first| *first != answers) {
            return Err(format!("a sweep changed {first:?} to {answers:?}"));
        }
        first.get_or_insert(answers);
        attempts_are_whole(&store).map_err(|wrong| format!("afterwards, swept {swept}: {wrong}"))?;
        drop(store);
        process.kill();
    }
    if cut {
        oracle.borrow_mut().model.settle(&first.unwrap_or_default());
    }
    Ok(())
}

/// Returns the contents that the attempts of all processes refer to.
async fn recorded(store: &Store) -> Result<HashSet<BlobId>, Error> {
    let mut blobs = HashSet::new();
    for who in 0..3 {
        blobs.extend(Attempts::new(store.clone(), &who.to_string()).blobs().await?);
    }
    Ok(blobs)
}

/// Checks that every recorded attempt has its files.
fn attempts_are_whole(store: &Store) -> Result<(), String> {
    for who in 0..3 {
        let attempts = Attempts::new(store.clone(), &who.to_string());
        let failed = |error: Error| format!("{error:?}");
        for feature in block_on(attempts.features()).map_err(failed)? {
            for attempt in block_on(attempts.list(&feature)).map_err(failed)? {
                block_on(attempts.files(&attempt)).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Checks that removals free space in any state.
fn free(script: &Script, machine: &Machine, oracle: &SharedOracle) -> Result<(), String> {
    let process = machine.process();
    let failed = |error: Error| format!("cannot be freed: {error:?}");
    let store = open(&process, &script.setting).map_err(failed)?;
    for name in block_on(store.list("")).map_err(failed)? {
        block_on(store.remove(&name)).map_err(failed)?;
    }
    let freed = block_on(store.sweep(&HashSet::new())).map_err(failed)?;
    block_on(store.flush()).map_err(failed)?;
    for number in 0..3_u64 {
        let contents: Bytes = [&number.to_le_bytes()[..], &[9; 2000]].concat().into();
        block_on(store.put("new", contents)).map_err(failed)?;
        block_on(store.flush()).map_err(failed)?;
    }
    oracle.borrow_mut().totals.freed += freed;
    Ok(())
}

/// Removes parts of a failing script as long as it fails in the same way.
pub(crate) fn shrink(script: Script, why: &str) -> (Script, String) {
    simulation::shrink(script, why, |script| run(script).map(drop), smaller)
}

fn smaller(script: &Script) -> Vec<Script> {
    let mut all = Vec::new();
    let mut push = |change: &dyn Fn(&mut Script)| {
        let mut candidate = script.clone();
        change(&mut candidate);
        all.push(candidate);
    };
    for round in 0..script.rounds.len() {
        push(&|s| drop(s.rounds.remove(round)));
        push(&|s| s.rounds[round].crash = Crash::None);
        for process in 0..script.rounds[round].processes.len() {
            push(&|s| drop(s.rounds[round].processes.remove(process)));
            for range in simulation::removable_ranges(script.rounds[round].processes[process].len()) {
                push(&|s| drop(s.rounds[round].processes[process].drain(range.clone())));
            }
        }
    }
    push(&|s| s.short_per_mille = 0);
    push(&|s| s.interrupted_per_mille = 0);
    push(&|s| s.capacity_kib = 0);
    push(&|s| s.skew_micros = 0);
    push(&|s| s.setting.compressed = false);
    push(&|s| s.setting.find_similar = false);
    all
}
