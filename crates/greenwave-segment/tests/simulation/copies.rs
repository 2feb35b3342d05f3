//! Copies a directory file by file while processes write and compact. Each copy contains everything
//! that had been flushed before it was begun, or is refused as incomplete.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use greenwave_segment::simulation::{Machine, Schedule, pause};
use greenwave_segment::{Error, Log};

use crate::model::{Model, View};
use crate::run::{Recorder, key_of, options, process};
use greenwave_testkit::random::Random;

use crate::script::{Op, Script};

const COUNT: &str = "GREENWAVE_SIMULATION_COPIES";

#[test]
fn a_copy_of_a_live_directory_is_complete_or_refused() {
    let count: u64 = std::env::var(COUNT).map_or(300, |count| count.parse().unwrap());
    let (mut complete, mut refused) = (0, 0);
    for seed in 0..count {
        match copy_once(seed) {
            Ok(true) => complete += 1,
            Ok(false) => refused += 1,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    crate::print_line(&format!("{count} copies: {complete} complete, {refused} refused"));
    assert!(complete > count / 4 && refused > 0, "{complete} complete, {refused} refused");
}

/// Copied files, and the state of the model when the copy was begun.
#[derive(Default)]
struct CopiedFiles {
    before: Model,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

fn copy_once(seed: u64) -> Result<bool, String> {
    let mut random = Random::new(seed);
    let mut script = Script::random(seed);
    script.settings.drop_oldest = false;
    script.settings.disk_kib_max = 0;
    let settings = script.settings;
    let machine = Machine::new(seed);
    let recorder: Rc<RefCell<Recorder>> = Rc::default();
    let mut schedule = Schedule::new();
    for who in 0..2 {
        let (one, recorder) = (machine.process(), recorder.clone());
        let ops = random_ops(&mut random);
        schedule.spawn(&one.clone(), move || process(who, &one, settings, &ops, &recorder));
    }
    let copied: Rc<RefCell<CopiedFiles>> = Rc::default();
    // A log is open all the time, as the guarantee requires.
    let (done, holder) = (Rc::new(Cell::new(false)), machine.process());
    let (until, open) = (done.clone(), Rc::new(Cell::new(false)));
    let opened = open.clone();
    schedule.spawn(&holder.clone(), move || {
        let log = Log::open_simulated(&holder, "/log", options(&settings)).unwrap();
        log.put(b"holder", b"value").unwrap();
        opened.set(true);
        while !until.get() {
            pause();
        }
    });
    let copier = {
        let (machine, copied, recorder) = (machine.clone(), copied.clone(), recorder.clone());
        let (start, random) = (random.below(200), random.clone());
        let one = machine.process();
        schedule.spawn(&one, move || {
            while !open.get() {
                pause();
            }
            (0..start).for_each(|_| pause());
            copy_files(&machine, random, &recorder, &copied);
        })
    };
    let mut step = random.clone();
    while !schedule.has_finished(copier) {
        let runnable = schedule.runnable().unwrap();
        schedule.step(runnable[step.below(runnable.len() as u64) as usize]);
        if let Some(violation) = recorder.borrow_mut().violation.take() {
            return Err(violation);
        }
    }
    done.set(true);
    drop(schedule);
    check_copy(&mut copied.borrow_mut(), &recorder.borrow().model, &script)
}

fn random_ops(random: &mut Random) -> Vec<Op> {
    let op = |_| match random.below(10) {
        0..6 => Op::Put { key: random.below(4) as u8, len: 700 },
        6 => Op::Put { key: 4 + random.below(20) as u8, len: 300 },
        7 | 8 => Op::Flush,
        _ => Op::Compact,
    };
    (0..30).map(op).collect()
}

/// Copies all files in random order, pausing in between.
fn copy_files(
    machine: &Machine,
    mut random: Random,
    recorder: &RefCell<Recorder>,
    copied: &RefCell<CopiedFiles>,
) {
    copied.borrow_mut().before = recorder.borrow().model.clone();
    let mut left = machine.files();
    while !left.is_empty() {
        let path = left.swap_remove(random.below(left.len() as u64) as usize);
        if let Some(content) = machine.read(&path) {
            copied.borrow_mut().files.insert(path, content);
        }
        (0..random.below(12)).for_each(|_| pause());
    }
}

/// Returns whether the copy opens. If it does, everything flushed before it was begun must exist,
/// or newer values.
fn check_copy(copied: &mut CopiedFiles, after: &Model, script: &Script) -> Result<bool, String> {
    let copy = Machine::new(7);
    copy.set_identity(2);
    for (path, content) in &copied.files {
        copy.overwrite(path, Some(content));
    }
    // Unflushed changes may be in the copy or not.
    copied.before.record_crash();
    let mut view = View::default();
    copied.before.require_acknowledged(&mut view);
    let mut first = None;
    for _ in 0..3 {
        let one = copy.process();
        let log = match Log::open_simulated(&one, "/log", options(&script.settings)) {
            Ok(log) => log,
            Err(Error::IncompleteCopy { .. }) if first.is_none() => return Ok(false),
            Err(error) => return Err(format!("cannot be opened: {error}")),
        };
        let mut answers = BTreeMap::new();
        for key in (0..24).map(key_of) {
            let got = log.get(&key).map_err(|error| error.to_string())?;
            after.check(&view, &key, got.as_deref())?;
            answers.insert(key, got);
        }
        let first = first.get_or_insert_with(|| answers.clone());
        if let Some((key, answer)) = answers.iter().find(|(key, answer)| first.get(*key) != Some(answer)) {
            let (key, then) = (String::from_utf8_lossy(key), first.get(key));
            return Err(format!("{key} changes when the copy is opened again: {then:?}, then {answer:?}"));
        }
        log.compact().map_err(|error| error.to_string())?;
        one.kill();
    }
    Ok(true)
}
