//! Runs a script on a simulated machine, checks every answer, and shrinks scripts that fail.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced, clock};
use greenwave_segment::{Batch, Compression, Error, Log, Options, WhenFull};

use crate::model::{Key, Model, View};
use crate::script::{Crash, Op, Random, Round, Script, Setting};

const DIR: &str = "/log";
const SEGMENT_BYTES_MAX: u64 = 4096;
/// More steps than any script needs: a run that takes more is stuck.
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
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.operations += other.operations;
        self.answers += other.answers;
        self.crashes += other.crashes;
        self.failed_operations += other.failed_operations;
        self.compacted_segments += other.compacted_segments;
        self.deltas += other.deltas;
    }
}

/// What all processes of a run share with their judge.
#[derive(Debug, Default)]
pub(crate) struct Court {
    pub(crate) model: Model,
    pub(crate) wrong: Option<String>,
    pub(crate) totals: Totals,
    values: u64,
    handles: usize,
}

impl Court {
    fn accuse(&mut self, who: usize, what: &str) {
        self.wrong.get_or_insert_with(|| format!("process {who}: {what}"));
    }

    fn handle(&mut self) -> usize {
        self.handles += 1;
        self.handles
    }

    /// A value that nobody else puts: its number, then bytes that do not compress but are the same in every third value.
    fn value(&mut self, len: u16) -> Vec<u8> {
        self.values += 1;
        let mut value = self.values.to_le_bytes().to_vec();
        let mut random = Random(self.values % 3);
        value.extend(std::iter::repeat_with(|| random.next() as u8).take(len.into()));
        value
    }
}

type Shared = Rc<RefCell<Court>>;

pub(crate) fn options(setting: &Setting) -> Options {
    Options {
        segment_bytes_max: SEGMENT_BYTES_MAX,
        compression: if setting.compressed { Compression::Zstd { level: 1 } } else { Compression::None },
        chain_depth_max: setting.chain_depth_max,
        disk_bytes_max: (setting.disk_kib_max > 0).then(|| u64::from(setting.disk_kib_max) << 10),
        when_full: if setting.drop_oldest { WhenFull::DropOldest } else { WhenFull::Refuse },
        open_files_max: setting.open_files_max,
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

/// One process: opens the log, does its operations, and reports each to the court.
pub(crate) fn process(who: usize, machine: &Process, setting: Setting, ops: &[Op], court: &Shared) {
    let open = || Log::open_simulated(machine, DIR, options(&setting));
    let mut view = View::default();
    court.borrow().model.see(&mut view);
    let mut log = match open() {
        Ok(log) => log,
        Err(error) => return refused(who, &error, court),
    };
    // A flush is about what was put through the same handle.
    let mut handle = court.borrow_mut().handle();
    for op in ops {
        court.borrow_mut().totals.operations += 1;
        if *op == Op::Reopen {
            drop(log);
            handle = court.borrow_mut().handle();
            view = View::default();
            court.borrow().model.see(&mut view);
            log = match open() {
                Ok(log) => log,
                Err(error) => return refused(who, &error, court),
            };
            continue;
        }
        perform(handle, &log, &mut view, *op, court);
    }
}

/// An operation failed. Only some failures are the disk's.
fn refused(who: usize, error: &Error, court: &Shared) {
    let mut court = court.borrow_mut();
    court.totals.failed_operations += 1;
    let fair = match error {
        Error::Full { .. } => true,
        Error::Io { source, .. } => {
            source.kind() == std::io::ErrorKind::StorageFull
                || source.raw_os_error() == Some(24)
                || source.kind() == std::io::ErrorKind::Other
                || source.kind() == std::io::ErrorKind::WouldBlock
        }
        _ => false,
    };
    if !fair {
        court.accuse(who, &format!("failed: {error}: {:?}", std::error::Error::source(error)));
    }
}

fn perform(who: usize, log: &Log, view: &mut View, op: Op, court: &Shared) {
    let put = |key: &[u8], len: u16, view: &mut View, work: &dyn Fn(&[u8]) -> Result<(), Error>| {
        let value = court.borrow_mut().value(len);
        let number = court.borrow_mut().model.begin(key, Some(&value), who, None);
        match work(&value) {
            Ok(()) => {
                let mut court = court.borrow_mut();
                court.totals.deltas += u64::from(log.stats().deltas > 0);
                court.model.acknowledge(key, number, log.last_timestamp());
                court.model.own(view, key, log.last_timestamp());
            }
            Err(error) => {
                court.borrow_mut().model.fail(key, number);
                refused(who, &error, court);
            }
        }
    };
    match op {
        Op::Put { key, len } => {
            let key = key_of(key);
            put(&key, len, view, &|value| log.put(&key, value));
        }
        Op::PutLike { key, len, like } => {
            let (key, like) = (key_of(key), key_of(like));
            put(&key, len, view, &|value| log.put_delta(&key, value, &like));
        }
        Op::Remove { key } => {
            let key = key_of(key);
            let number = court.borrow_mut().model.begin(&key, None, who, None);
            match log.remove(&key) {
                Ok(true) => {
                    let mut court = court.borrow_mut();
                    court.model.acknowledge(&key, number, log.last_timestamp());
                    court.model.own(view, &key, log.last_timestamp());
                }
                Ok(false) => {
                    let mut court = court.borrow_mut();
                    court.model.fail(&key, number);
                    if let Err(wrong) = court.model.check(view, &key, None) {
                        court.accuse(who, &wrong);
                    }
                }
                Err(error) => {
                    court.borrow_mut().model.fail(&key, number);
                    refused(who, &error, court);
                }
            }
        }
        Op::Batch { first, count, len } => write_batch(who, log, view, (first, count, len), court),
        Op::Increment { counter } => increment(who, log, view, &counter_of(counter), court),
        Op::Get { key } => get(who, log, view, &key_of(key), court),
        Op::Flush => {
            let began = court.borrow_mut().model.event();
            match log.flush() {
                Ok(()) => court.borrow_mut().model.flushed(who, began),
                Err(error) => refused(who, &error, court),
            }
        }
        Op::Refresh => {
            let mut seen = view.clone();
            court.borrow().model.see(&mut seen);
            match log.refresh() {
                Ok(()) => *view = seen,
                Err(error) => refused(who, &error, court),
            }
            for key in 0..24 {
                get(who, log, view, &key_of(key), court);
            }
        }
        Op::Compact => match log.compact() {
            Ok(done) => court.borrow_mut().totals.compacted_segments += done.segments,
            Err(error) => refused(who, &error, court),
        },
        Op::Reopen => {}
    }
}

fn get(who: usize, log: &Log, view: &View, key: &[u8], court: &Shared) {
    match log.get(key) {
        Ok(got) => {
            let mut court = court.borrow_mut();
            court.totals.answers += 1;
            if let Err(wrong) = court.model.check(view, key, got.as_deref()) {
                court.accuse(who, &wrong);
            }
        }
        Err(error) => refused(who, &error, court),
    }
}

fn write_batch(who: usize, log: &Log, view: &mut View, (first, count, len): (u8, u8, u16), court: &Shared) {
    let keys: Vec<Key> = (first..first.saturating_add(count)).map(key_of).collect();
    let (mut batch, mut numbers) = (Batch::new(), Vec::new());
    {
        let mut court = court.borrow_mut();
        let id = court.model.new_batch();
        for key in &keys {
            let value = court.value(len);
            batch = batch.put(key, &value);
            numbers.push(court.model.begin(key, Some(&value), who, Some(id)));
        }
    }
    let written = log.write(&batch);
    let mut guard = court.borrow_mut();
    for (key, number) in keys.iter().zip(numbers) {
        if matches!(written, Ok(true)) {
            guard.model.acknowledge(key, number, log.last_timestamp());
            guard.model.own(view, key, log.last_timestamp());
        } else {
            guard.model.fail(key, number);
        }
    }
    drop(guard);
    match written {
        Ok(true) => {}
        Ok(false) => court.borrow_mut().accuse(who, "a batch without conditions was refused"),
        Err(error) => refused(who, &error, court),
    }
}

/// Reads a counter and replaces what was read, once.
fn increment(who: usize, log: &Log, view: &mut View, key: &[u8], court: &Shared) {
    let old = match log.get(key) {
        Ok(old) => old.map(|old| old.to_vec()),
        Err(error) => return refused(who, &error, court),
    };
    let value = court.borrow_mut().value(10);
    let number = court.borrow_mut().model.begin(key, Some(&value), who, None);
    let swapped = log.compare_and_swap(key, old.as_deref(), Some(&value));
    let mut guard = court.borrow_mut();
    match swapped {
        Ok(true) => {
            guard.model.acknowledge(key, number, log.last_timestamp());
            guard.model.own(view, key, log.last_timestamp());
            if let Err(wrong) = guard.model.incremented(key, old) {
                guard.accuse(who, &wrong);
            }
        }
        Ok(false) => guard.model.fail(key, number),
        Err(error) => {
            guard.model.fail(key, number);
            drop(guard);
            refused(who, &error, court);
        }
    }
}

/// Runs a script; says what went wrong, a panic included.
pub(crate) fn run(script: &Script) -> Result<Totals, String> {
    std::panic::catch_unwind(|| run_unguarded(script)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn run_unguarded(script: &Script) -> Result<Totals, String> {
    let court: Shared = Rc::default();
    court.borrow_mut().model.may_drop = script.setting.drop_oldest;
    let unordered = script.open_files > 0 || script.capacity_kib > 0;
    court.borrow_mut().model.clocks_are_close = unordered || (1..1000).contains(&script.skew_micros.abs());
    let machine = Machine::new(script.seed);
    if TRACED.get() {
        machine.record();
    }
    let traced = Traced(&machine);
    let mut random = Random(script.seed);
    for round in &script.rounds {
        let cut = run_round(script, round, &machine, &mut random, &court)?;
        check_budget(script, round, &machine)?;
        judge(script, &machine, &court, cut)?;
    }
    let totals = court.borrow().totals;
    drop(traced);
    Ok(totals)
}

thread_local! {
    /// Whether runs on this thread print every file operation when they end.
    pub(crate) static TRACED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Prints the trace of a machine when it is dropped.
struct Traced<'a>(&'a Machine);

impl Drop for Traced<'_> {
    fn drop(&mut self) {
        if TRACED.get() {
            crate::say(&self.0.trace().join("\n"));
        }
    }
}

fn faults(script: &Script) -> Faults {
    Faults {
        interrupted: script.interrupted_per_mille,
        short: script.short_per_mille,
        sync: 0,
        capacity: u64::from(script.capacity_kib) << 10,
        open_files: script.open_files.into(),
    }
}

/// Together, processes exceed the budget by their unfinished segments at most, and by what one of them was just copying.
fn check_budget(script: &Script, round: &Round, machine: &Machine) -> Result<(), String> {
    let budget = u64::from(script.setting.disk_kib_max) << 10;
    if budget == 0 || script.capacity_kib > 0 {
        return Ok(());
    }
    let files = machine.files().into_iter();
    let ours = files.filter(|path| path.extension().is_some_and(|it| it == "seg" || it == "idx"));
    let used: u64 = ours.filter_map(|path| Some(machine.read(&path)?.len() as u64)).sum();
    let allowed = budget + (round.processes.len() as u64 + 1) * SEGMENT_BYTES_MAX * 2;
    if used > allowed {
        return Err(format!("{used} bytes are used of {budget}, and at most {allowed} were allowed"));
    }
    Ok(())
}

/// Returns whether the power was cut.
fn run_round(
    script: &Script,
    round: &Round,
    machine: &Machine,
    random: &mut Random,
    court: &Shared,
) -> Result<bool, String> {
    machine.set_faults(faults(script));
    let mut schedule = Schedule::new();
    for (who, ops) in round.processes.iter().enumerate() {
        let process_of = machine.process();
        process_of.set_clock_ahead(script.skew_micros * 1000 * who as i64);
        let (setting, ops, court) = (script.setting, ops.clone(), court.clone());
        schedule.spawn(&process_of.clone(), move || process(who, &process_of, setting, &ops, &court));
    }
    let mut current = 0;
    let mut step = 0_u64;
    while let Some(runnable) = schedule.runnable() {
        match round.crash {
            Crash::Kill { process, step: at } if u64::from(at) == step => {
                schedule.kill(process.into());
                court.borrow_mut().model.blur_increments();
                court.borrow_mut().totals.crashes += 1;
            }
            Crash::Power { step: at, kept } if u64::from(at) == step => {
                machine.cut_power(unsynced(kept));
                drop(schedule);
                let mut court = court.borrow_mut();
                court.totals.crashes += 1;
                if kept > 0 {
                    court.model.lost_power();
                }
                return court.wrong.take().map_or(Ok(true), Err);
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
        court.borrow_mut().totals.steps += 1;
        let wrong = court.borrow_mut().wrong.take();
        if let Some(wrong) = wrong.or_else(|| court.borrow_mut().model.out_of_order.take()) {
            return Err(wrong);
        }
        if step > STEPS_MAX {
            return Err("it does not end".into());
        }
    }
    Ok(false)
}

fn unsynced(kept: u8) -> Unsynced {
    match kept {
        0 => Unsynced::All,
        1 => Unsynced::None,
        _ => Unsynced::Some,
    }
}

/// Opens the log anew, three times, with a compaction in between, on a disk without faults: each time the answers must be
/// right, and the same.
pub(crate) fn judge(script: &Script, machine: &Machine, court: &Shared, durable: bool) -> Result<(), String> {
    machine.set_faults(Faults::default());
    let mut view = View::default();
    court.borrow().model.see(&mut view);
    let mut first: Option<BTreeMap<Key, Option<Vec<u8>>>> = None;
    for compacted in [false, false, true, true] {
        let process = machine.process();
        let log = Log::open_simulated(&process, DIR, options(&script.setting))
            .map_err(|error| format!("cannot be opened afterwards: {error}"))?;
        if compacted {
            log.compact().map_err(|error| format!("cannot be compacted afterwards: {error}"))?;
        }
        let mut answers = BTreeMap::new();
        for key in (0..30).map(key_of).chain((0..2).map(counter_of)) {
            let got = log.get(&key).map_err(|error| format!("cannot be read afterwards: {error}"))?;
            court.borrow().model.check(&view, &key, got.as_deref()).map_err(|wrong| {
                format!("afterwards{}: {wrong}", if compacted { ", compacted" } else { "" })
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
    court.borrow_mut().model.settle(&answers, durable)
}

/// Removes what a failing script does not need to fail in the same way.
pub(crate) fn shrink(mut script: Script, why: &str) -> (Script, String) {
    let kind = |why: &str| why.chars().filter(char::is_ascii_alphabetic).take(12).collect::<String>();
    let (wanted, last) = (kind(why), RefCell::new(why.to_owned()));
    let fails = |script: &Script| match run(script) {
        Err(why) if kind(&why) == wanted => {
            *last.borrow_mut() = why;
            true
        }
        _ => false,
    };
    let mut tries = 3000;
    loop {
        let before = script.clone();
        for candidate in smaller(&script) {
            tries -= 1;
            if tries == 0 {
                return (script, last.into_inner());
            }
            if candidate != script && fails(&candidate) {
                script = candidate;
                break;
            }
        }
        if script == before {
            return (script, last.into_inner());
        }
    }
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
            let len = script.rounds[round].processes[process].len();
            let mut size = len.div_ceil(2);
            while size > 0 {
                for from in (0..len).step_by(size) {
                    push(&|s| {
                        let ops = &mut s.rounds[round].processes[process];
                        ops.drain(from..(from + size).min(ops.len()));
                    });
                }
                size /= 2;
            }
        }
    }
    push(&|s| s.short_per_mille = 0);
    push(&|s| s.interrupted_per_mille = 0);
    push(&|s| s.capacity_kib = 0);
    push(&|s| s.open_files = 0);
    push(&|s| s.skew_micros = 0);
    push(&|s| s.setting.compressed = false);
    push(&|s| s.setting.chain_depth_max = 0);
    push(&|s| s.setting.open_files_max = 256);
    all
}
