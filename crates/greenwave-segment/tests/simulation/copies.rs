//! Copies of a directory that are made file by file while processes write and compact: each opens with all that had been flushed
//! before it was begun, or says that it is incomplete.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use greenwave_segment::simulation::{Machine, Schedule, pause};
use greenwave_segment::{Error, Log};

use crate::model::{Model, View};
use crate::run::{Court, key_of, options, process};
use crate::script::{Op, Random, Script};

const COUNT: &str = "GREENWAVE_SIMULATION_COPIES";

#[test]
fn a_copy_of_a_live_directory_is_whole_or_says_that_it_is_not() {
    let count: u64 = std::env::var(COUNT).map_or(300, |count| count.parse().unwrap());
    let (mut whole, mut refused) = (0, 0);
    for seed in 0..count {
        match copy_once(seed) {
            Ok(true) => whole += 1,
            Ok(false) => refused += 1,
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    crate::say(&format!("{count} copies: {whole} whole, {refused} refused"));
    assert!(whole > count / 4 && refused > 0, "{whole} whole, {refused} refused");
}

/// What was flushed when the copy was begun, and the files as they were copied.
#[derive(Default)]
struct Copied {
    before: Model,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

fn copy_once(seed: u64) -> Result<bool, String> {
    let mut random = Random(seed);
    let mut script = Script::random(seed);
    script.setting.drop_oldest = false;
    script.setting.disk_kib_max = 0;
    let setting = script.setting;
    let machine = Machine::new(seed);
    let court: Rc<RefCell<Court>> = Rc::default();
    let mut schedule = Schedule::new();
    for who in 0..2 {
        let (one, court) = (machine.process(), court.clone());
        let ops: Vec<Op> = (0..30)
            .map(|_| match random.below(10) {
                0..6 => Op::Put { key: random.below(4) as u8, len: 700 },
                6 => Op::Put { key: 4 + random.below(20) as u8, len: 300 },
                7 | 8 => Op::Flush,
                _ => Op::Compact,
            })
            .collect();
        schedule.spawn(&one.clone(), move || process(who, &one, setting, &ops, &court));
    }
    let copied: Rc<RefCell<Copied>> = Rc::default();
    // Somebody has the log open all the time, as the promise wants it.
    let (done, holder) = (Rc::new(Cell::new(false)), machine.process());
    let (until, open) = (done.clone(), Rc::new(Cell::new(false)));
    let opened = open.clone();
    schedule.spawn(&holder.clone(), move || {
        let log = Log::open_simulated(&holder, "/log", options(&setting)).unwrap();
        log.put(b"holder", b"value").unwrap();
        opened.set(true);
        while !until.get() {
            pause();
        }
    });
    let copier = {
        let (machine, copied, court) = (machine.clone(), copied.clone(), court.clone());
        let (start, mut random) = (random.below(200), random.clone());
        let one = machine.process();
        schedule.spawn(&one, move || {
            while !open.get() {
                pause();
            }
            (0..start).for_each(|_| pause());
            copied.borrow_mut().before = court.borrow().model.clone();
            let mut left = machine.files();
            while !left.is_empty() {
                let path = left.swap_remove(random.below(left.len() as u64) as usize);
                if let Some(content) = machine.read(&path) {
                    copied.borrow_mut().files.insert(path, content);
                }
                (0..random.below(12)).for_each(|_| pause());
            }
        })
    };
    let mut step = random.clone();
    while !schedule.has_finished(copier) {
        let runnable = schedule.runnable().unwrap();
        schedule.step(runnable[step.below(runnable.len() as u64) as usize]);
        if let Some(wrong) = court.borrow_mut().wrong.take() {
            return Err(wrong);
        }
    }
    done.set(true);
    drop(schedule);
    judge(&mut copied.borrow_mut(), &court.borrow().model, &script)
}

/// Whether the copy opens; then everything that was flushed before it was begun has to be there, or something newer.
fn judge(copied: &mut Copied, after: &Model, script: &Script) -> Result<bool, String> {
    let copy = Machine::new(7);
    copy.set_identity(2);
    for (path, content) in &copied.files {
        copy.overwrite(path, Some(content));
    }
    // What was not flushed may be in the copy or not.
    copied.before.lost_power();
    let mut view = View::default();
    copied.before.see(&mut view);
    let mut first = None;
    for _ in 0..3 {
        let one = copy.process();
        let log = match Log::open_simulated(&one, "/log", options(&script.setting)) {
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
