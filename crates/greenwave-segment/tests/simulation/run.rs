//! Runs a script on a simulated machine, checks every result, and shrinks failing scripts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced, clock};
use greenwave_segment::{Compression, Error, LoadIndex, Log, Options, WhenFull, WriteBatch};

use crate::model::{Key, Model, View};
use greenwave_testkit::random::Random;
use greenwave_testkit::simulation;

use crate::script::{Crash, LogSettings, Op, Round, Script};

const DIR: &str = "/log";
const SEGMENT_BYTES_MAX: u64 = 4096;
/// The fastest one. Most values do not compress anyway.
const COMPRESSION_LEVEL: i32 = -7;
/// Size of trained dictionaries, in bytes.
const DICTIONARY_BYTES_MAX: usize = 1024;
/// Maximum number of steps; a run that takes more is stuck.
const STEPS_MAX: u64 = 400_000;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) steps: u64,
    pub(crate) operations: u64,
    pub(crate) answers: u64,
    pub(crate) crashes: u64,
    pub(crate) failed_operations: u64,
    pub(crate) compacted_segments: u64,
    pub(crate) deltas: u64,
    pub(crate) dictionaries: u64,
    /// Segments whose part of the index was not read on opening.
    pub(crate) unread_segments: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.operations += other.operations;
        self.answers += other.answers;
        self.crashes += other.crashes;
        self.failed_operations += other.failed_operations;
        self.compacted_segments += other.compacted_segments;
        self.deltas += other.deltas;
        self.dictionaries += other.dictionaries;
        self.unread_segments += other.unread_segments;
    }
}

/// Model and results of a run, which its processes share.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) model: Model,
    pub(crate) violation: Option<String>,
    pub(crate) totals: Totals,
    values: u64,
    handles: usize,
}

impl Recorder {
    fn report(&mut self, who: usize, what: &str) {
        self.violation.get_or_insert_with(|| format!("process {who}: {what}"));
    }

    fn handle(&mut self) -> usize {
        self.handles += 1;
        self.handles
    }

    /// Returns a unique value: its number, bytes that do not compress but are equal in every third
    /// value, and its number again. Half a value is therefore never completed by the rest of
    /// another one that was written to the same place.
    fn value(&mut self, len: u16) -> Vec<u8> {
        self.values += 1;
        let number = self.values.to_le_bytes();
        TAILS.with(|tails| {
            [&number[..], &tails[(self.values % 3) as usize][..len.into()], &number[..]].concat()
        })
    }
}

/// Maximum size of a value without its numbers, in bytes.
const TAIL_BYTES_MAX: usize = 2048;

thread_local! {
    /// Bytes that follow the numbers of values.
    static TAILS: [Vec<u8>; 3] = [0, 1, 2].map(|seed| {
        let mut random = Random::new(seed);
        std::iter::repeat_with(|| random.next_u64() as u8).take(TAIL_BYTES_MAX).collect()
    });
}

type SharedRecorder = Rc<RefCell<Recorder>>;

pub(crate) fn options(settings: &LogSettings) -> Options {
    Options {
        segment_bytes_max: SEGMENT_BYTES_MAX,
        compression: if settings.compressed {
            Compression::Zstd { level: COMPRESSION_LEVEL }
        } else {
            Compression::None
        },
        chain_depth_max: settings.chain_depth_max,
        disk_bytes_max: (settings.disk_kib_max > 0).then(|| u64::from(settings.disk_kib_max) << 10),
        when_full: if settings.drop_oldest { WhenFull::DropOldest } else { WhenFull::Refuse },
        open_files_max: settings.open_files_max,
        load_index: if settings.on_demand == 0 { LoadIndex::OnOpen } else { LoadIndex::OnDemand },
        clock,
        ..Options::default()
    }
}

pub(crate) fn key_of(number: u8) -> Key {
    format!("key{number}").into_bytes()
}

fn counter_of(number: u8) -> Key {
    format!("counter{number}").into_bytes()
}

/// Runs a process: opens the log, performs the operations, and records each.
pub(crate) fn process(
    who: usize,
    machine: &Process,
    settings: LogSettings,
    ops: &[Op],
    recorder: &SharedRecorder,
) {
    let open = || {
        let opened = Log::open_simulated(machine, DIR, options(&settings.of(who)));
        if let Ok(log) = &opened {
            recorder.borrow_mut().totals.unread_segments += log.stats().unread_segments;
        }
        opened
    };
    let mut view = View::default();
    recorder.borrow().model.require_acknowledged(&mut view);
    let mut log = match open() {
        Ok(log) => log,
        Err(error) => return check_failure(who, &error, recorder),
    };
    // A flush covers the puts through the same handle.
    let mut handle = recorder.borrow_mut().handle();
    for op in ops {
        recorder.borrow_mut().totals.operations += 1;
        if *op == Op::Reopen {
            drop(log);
            handle = recorder.borrow_mut().handle();
            view = View::default();
            recorder.borrow().model.require_acknowledged(&mut view);
            log = match open() {
                Ok(log) => log,
                Err(error) => return check_failure(who, &error, recorder),
            };
            continue;
        }
        perform(handle, &log, &mut view, *op, recorder);
    }
}

/// Records a failed operation. Only failures caused by the disk are permitted.
fn check_failure(who: usize, error: &Error, recorder: &SharedRecorder) {
    let mut recorder = recorder.borrow_mut();
    recorder.totals.failed_operations += 1;
    let permitted = match error {
        Error::Full { .. } => true,
        Error::Io { source, .. } => {
            source.kind() == std::io::ErrorKind::StorageFull
                || source.raw_os_error() == Some(24)
                || source.kind() == std::io::ErrorKind::Other
                || source.kind() == std::io::ErrorKind::WouldBlock
        }
        _ => false,
    };
    if !permitted {
        recorder.report(who, &format!("failed: {error}: {:?}", std::error::Error::source(error)));
    }
}

fn perform(who: usize, log: &Log, view: &mut View, op: Op, recorder: &SharedRecorder) {
    match op {
        Op::Put { key, len } => put(who, log, view, (key, len, None), recorder),
        Op::PutDelta { key, len, base } => put(who, log, view, (key, len, Some(base)), recorder),
        Op::Remove { key } => remove(who, log, view, &key_of(key), recorder),
        Op::WriteBatch { first, count, len } => write_batch(who, log, view, (first, count, len), recorder),
        Op::Increment { counter } => increment(who, log, view, &counter_of(counter), recorder),
        Op::Get { key } => get(who, log, view, &key_of(key), recorder),
        Op::Flush => {
            let began = recorder.borrow_mut().model.event();
            match log.flush() {
                Ok(()) => recorder.borrow_mut().model.flushed(who, began),
                Err(error) => check_failure(who, &error, recorder),
            }
        }
        Op::Refresh => {
            let mut required = view.clone();
            recorder.borrow().model.require_acknowledged(&mut required);
            match log.refresh() {
                Ok(()) => *view = required,
                Err(error) => check_failure(who, &error, recorder),
            }
            for key in 0..24 {
                get(who, log, view, &key_of(key), recorder);
            }
        }
        Op::Compact => match log.compact() {
            Ok(done) => recorder.borrow_mut().totals.compacted_segments += done.segments,
            Err(error) => check_failure(who, &error, recorder),
        },
        Op::TrainDictionary => match log.train_dictionary(DICTIONARY_BYTES_MAX) {
            Ok(trained) => recorder.borrow_mut().totals.dictionaries += u64::from(trained),
            // The log does not compress.
            Err(Error::Option { .. }) => {}
            Err(error) => check_failure(who, &error, recorder),
        },
        Op::Reopen => {}
    }
}

fn put(
    who: usize,
    log: &Log,
    view: &mut View,
    (key, len, base): (u8, u16, Option<u8>),
    recorder: &SharedRecorder,
) {
    let key = key_of(key);
    let value = recorder.borrow_mut().value(len);
    let number = recorder.borrow_mut().model.begin(&key, Some(&value), who, None);
    let result = match base {
        Some(base) => log.put_delta(&key, &value, &key_of(base)),
        None => log.put(&key, &value),
    };
    match result {
        Ok(()) => {
            let mut recorder = recorder.borrow_mut();
            recorder.totals.deltas += u64::from(log.stats().deltas > 0);
            recorder.model.acknowledge(&key, number, timestamps(log));
            recorder.model.require_own(view, &key, log.last_timestamp());
        }
        Err(error) => {
            recorder.borrow_mut().model.fail(&key, number);
            check_failure(who, &error, recorder);
        }
    }
}

/// Returns the timestamps of the first and the last record of the last change.
fn timestamps(log: &Log) -> RangeInclusive<u64> {
    log.first_timestamp()..=log.last_timestamp()
}

fn remove(who: usize, log: &Log, view: &mut View, key: &[u8], recorder: &SharedRecorder) {
    let number = recorder.borrow_mut().model.begin(key, None, who, None);
    match log.remove(key) {
        Ok(true) => {
            let mut recorder = recorder.borrow_mut();
            recorder.model.acknowledge(key, number, timestamps(log));
            recorder.model.require_own(view, key, log.last_timestamp());
        }
        Ok(false) => {
            let mut recorder = recorder.borrow_mut();
            recorder.model.fail(key, number);
            if let Err(violation) = recorder.model.check(view, key, None) {
                recorder.report(who, &violation);
            }
        }
        Err(error) => {
            recorder.borrow_mut().model.fail(key, number);
            check_failure(who, &error, recorder);
        }
    }
}

fn get(who: usize, log: &Log, view: &View, key: &[u8], recorder: &SharedRecorder) {
    match log.get(key) {
        Ok(got) => {
            let mut recorder = recorder.borrow_mut();
            recorder.totals.answers += 1;
            if let Err(violation) = recorder.model.check(view, key, got.as_deref()) {
                recorder.report(who, &violation);
            }
        }
        Err(error) => check_failure(who, &error, recorder),
    }
}

fn write_batch(
    who: usize,
    log: &Log,
    view: &mut View,
    (first, count, len): (u8, u8, u16),
    recorder: &SharedRecorder,
) {
    let keys: Vec<Key> = (first..first.saturating_add(count)).map(key_of).collect();
    let (mut batch, mut numbers) = (WriteBatch::new(), Vec::new());
    {
        let mut recorder = recorder.borrow_mut();
        let id = recorder.model.new_batch();
        for key in &keys {
            let value = recorder.value(len);
            batch = batch.put(key, &value);
            numbers.push(recorder.model.begin(key, Some(&value), who, Some(id)));
        }
    }
    let written = log.write(&batch);
    let mut guard = recorder.borrow_mut();
    for (key, number) in keys.iter().zip(numbers) {
        if matches!(written, Ok(true)) {
            guard.model.acknowledge(key, number, timestamps(log));
            guard.model.require_own(view, key, log.last_timestamp());
        } else {
            guard.model.fail(key, number);
        }
    }
    drop(guard);
    match written {
        Ok(true) => {}
        Ok(false) => recorder.borrow_mut().report(who, "a batch without conditions was not written"),
        Err(error) => check_failure(who, &error, recorder),
    }
}

/// Reads a counter and replaces the value that was read.
fn increment(who: usize, log: &Log, view: &mut View, key: &[u8], recorder: &SharedRecorder) {
    let old = match log.get(key) {
        Ok(old) => old.map(|old| old.to_vec()),
        Err(error) => return check_failure(who, &error, recorder),
    };
    let value = recorder.borrow_mut().value(10);
    let number = recorder.borrow_mut().model.begin(key, Some(&value), who, None);
    let swapped = log.compare_and_swap(key, old.as_deref(), Some(&value));
    let mut guard = recorder.borrow_mut();
    match swapped {
        Ok(true) => {
            guard.model.acknowledge(key, number, timestamps(log));
            guard.model.require_own(view, key, log.last_timestamp());
            if let Err(violation) = guard.model.incremented(key, old) {
                guard.report(who, &violation);
            }
        }
        Ok(false) => guard.model.fail(key, number),
        Err(error) => {
            guard.model.fail(key, number);
            drop(guard);
            check_failure(who, &error, recorder);
        }
    }
}

/// Runs a script; returns the violation or panic, if any.
pub(crate) fn run(script: &Script) -> Result<Totals, String> {
    std::panic::catch_unwind(|| run_unguarded(script)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn run_unguarded(script: &Script) -> Result<Totals, String> {
    let recorder: SharedRecorder = Rc::default();
    recorder.borrow_mut().model.may_drop = script.settings.drop_oldest;
    let unordered = script.open_files > 0 || script.capacity_kib > 0;
    recorder.borrow_mut().model.clock_may_fail = unordered;
    recorder.borrow_mut().model.clocks_are_close = unordered || (1..1000).contains(&script.skew_micros.abs());
    let machine = Machine::new(script.seed);
    if TRACED.get() {
        machine.record();
    }
    let traced = Traced(&machine);
    let mut random = Random::new(script.seed);
    for round in &script.rounds {
        let cut = run_round(script, round, &machine, &mut random, &recorder)?;
        check_budget(script, round, &machine)?;
        check_reopened(script, &machine, &recorder, cut)?;
    }
    let totals = recorder.borrow().totals;
    drop(traced);
    Ok(totals)
}

thread_local! {
    /// Whether runs on this thread print their file operations.
    pub(crate) static TRACED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Prints the trace of a machine when dropped.
struct Traced<'a>(&'a Machine);

impl Drop for Traced<'_> {
    fn drop(&mut self) {
        if TRACED.get() {
            crate::print_line(&self.0.trace().join("\n"));
        }
    }
}

fn faults(script: &Script) -> Faults {
    Faults {
        interrupted: script.interrupted_per_mille,
        short: script.short_per_mille,
        sync: script.sync_per_mille,
        capacity: u64::from(script.capacity_kib) << 10,
        open_files: script.open_files.into(),
    }
}

/// Checks that processes together exceed the budget by at most their unsealed segments, and the
/// segment that one of them was copying.
fn check_budget(script: &Script, round: &Round, machine: &Machine) -> Result<(), String> {
    let budget = u64::from(script.settings.disk_kib_max) << 10;
    if budget == 0 || script.capacity_kib > 0 {
        return Ok(());
    }
    let files = machine.files().into_iter();
    let ours = files.filter(|path| path.extension().is_some_and(|it| it == "seg" || it == "idx"));
    let used: u64 = ours.filter_map(|path| machine.len(&path)).sum();
    let allowed = budget + (round.processes.len() as u64 + 1) * SEGMENT_BYTES_MAX * 2;
    if used > allowed {
        return Err(format!("{used} bytes are used of {budget}, and at most {allowed} were allowed"));
    }
    Ok(())
}

/// Runs the processes of a round; returns whether the power was cut.
fn run_round(
    script: &Script,
    round: &Round,
    machine: &Machine,
    random: &mut Random,
    recorder: &SharedRecorder,
) -> Result<bool, String> {
    machine.set_faults(faults(script));
    let mut schedule = Schedule::new();
    for (who, ops) in round.processes.iter().enumerate() {
        let process_of = machine.process();
        process_of.set_clock_ahead(script.skew_micros * 1000 * who as i64);
        let (settings, ops, recorder) = (script.settings, ops.clone(), recorder.clone());
        schedule.spawn(&process_of.clone(), move || process(who, &process_of, settings, &ops, &recorder));
    }
    let mut current = 0;
    let mut step = 0_u64;
    while let Some(runnable) = schedule.runnable() {
        match round.crash {
            Crash::Kill { process, step: at } if u64::from(at) == step => {
                schedule.kill(process.into());
                recorder.borrow_mut().model.mark_increments_uncertain();
                recorder.borrow_mut().totals.crashes += 1;
            }
            Crash::Power { step: at, unsynced } if u64::from(at) == step => {
                machine.cut_power(unsynced_of(unsynced));
                drop(schedule);
                let mut recorder = recorder.borrow_mut();
                recorder.totals.crashes += 1;
                if unsynced > 0 {
                    recorder.model.record_crash();
                }
                return recorder.violation.take().map_or(Ok(true), Err);
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
        recorder.borrow_mut().totals.steps += 1;
        let violation = recorder.borrow_mut().violation.take();
        if let Some(violation) = violation.or_else(|| recorder.borrow_mut().model.out_of_order.take()) {
            return Err(violation);
        }
        if step > STEPS_MAX {
            return Err("it does not end".into());
        }
    }
    Ok(false)
}

fn unsynced_of(unsynced: u8) -> Unsynced {
    match unsynced {
        0 => Unsynced::All,
        1 => Unsynced::None,
        _ => Unsynced::Some,
    }
}

/// Opens the log several times on a disk without faults, with compaction in between. The values
/// must be correct, and the same each time.
pub(crate) fn check_reopened(
    script: &Script,
    machine: &Machine,
    recorder: &SharedRecorder,
    durable: bool,
) -> Result<(), String> {
    machine.set_faults(Faults::default());
    let mut view = View::default();
    recorder.borrow().model.require_acknowledged(&mut view);
    let mut first: Option<BTreeMap<Key, Option<Vec<u8>>>> = None;
    for (opening, compacted) in [false, false, true, true].into_iter().enumerate() {
        let process = machine.process();
        // Both ways of reading the index find the same values.
        let settings = LogSettings { on_demand: (opening % 2) as u8, ..script.settings };
        let log = Log::open_simulated(&process, DIR, options(&settings))
            .map_err(|error| format!("cannot be opened afterwards: {error}"))?;
        if compacted {
            log.compact().map_err(|error| format!("cannot be compacted afterwards: {error}"))?;
        }
        let mut answers = BTreeMap::new();
        for key in (0..30).map(key_of).chain((0..2).map(counter_of)) {
            let got = log.get(&key).map_err(|error| format!("cannot be read afterwards: {error}"))?;
            recorder.borrow().model.check(&view, &key, got.as_deref()).map_err(|violation| {
                format!("afterwards{}: {violation}", if compacted { ", compacted" } else { "" })
            })?;
            answers.insert(key, got.map(|got| got.to_vec()));
        }
        if let Some(first) = &first
            && let Some((key, _)) = first.iter().find(|(key, answer)| answers.get(*key) != Some(answer))
        {
            return Err(format!("{} changes when the log is opened again", String::from_utf8_lossy(key)));
        }
        if log.stats().bad_records > 0
            && script.rounds.iter().all(|round| !matches!(round.crash, Crash::Power { .. }))
        {
            return Err("records were damaged without a power cut".into());
        }
        first.get_or_insert(answers);
        process.kill();
    }
    let answers = first.unwrap();
    recorder.borrow_mut().model.record_values(&answers, durable)
}

/// Removes parts of a failing script as long as it fails in the same way.
pub(crate) fn shrink(script: Script, violation: &str) -> (Script, String) {
    simulation::shrink(script, violation, |script| run(script).map(drop), smaller)
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
    push(&|s| s.open_files = 0);
    push(&|s| s.sync_per_mille = 0);
    push(&|s| s.skew_micros = 0);
    push(&|s| s.settings.compressed = false);
    push(&|s| s.settings.chain_depth_max = 0);
    push(&|s| s.settings.open_files_max = 256);
    push(&|s| s.settings.on_demand = 0);
    all
}
