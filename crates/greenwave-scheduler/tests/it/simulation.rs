//! The journal on a simulated machine, where several processes interleave at every file operation,
//! with kills, power cuts and full disks. A record or removal is visible to all processes once the
//! call has returned.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use greenwave_scheduler::Journal;
use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced};
use greenwave_testkit::random::Random;

const DIR: &str = "/journal";
const TASKS: u64 = 4;

#[derive(Debug, Clone)]
struct Change {
    payload: Option<u64>,
    began: u64,
    /// The time at which the call returned or its process ended.
    ended: Option<u64>,
    /// Set if the call returned `Ok`.
    counts: bool,
}

#[derive(Debug, Default)]
struct Court {
    tasks: BTreeMap<String, Vec<Change>>,
    events: u64,
    wrong: Option<String>,
    answers: u64,
}

impl Court {
    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn check(&mut self, finished: &BTreeMap<String, Bytes>, began: u64) {
        for task in (0..TASKS).map(|task| task.to_string()) {
            let got = finished.get(&task).map(|payload| u64::from_le_bytes(payload[..8].try_into().unwrap()));
            self.answers += 1;
            let none = Vec::new();
            let changes = self.tasks.get(&task).unwrap_or(&none);
            let newer = |ended: Option<u64>| {
                let over = |other: &Change| {
                    other.counts
                        && other.ended.is_some_and(|at| at <= began)
                        && ended.is_some_and(|ended| ended < other.began)
                };
                changes.iter().any(over)
            };
            let allowed = changes.iter().any(|change| change.payload == got && !newer(change.ended));
            if !allowed && (got.is_some() || newer(Some(0))) {
                self.wrong.get_or_insert(format!("task {task} has {got:?} from {began} on: {changes:#?}"));
            }
        }
    }
}

fn process(machine: &Process, mut random: Random, ops: u64, court: &Rc<RefCell<Court>>) {
    let Ok(journal) = Journal::open_simulated(machine, DIR) else { return };
    for _ in 0..ops {
        let task = random.below(TASKS).to_string();
        let kind = random.below(3);
        if kind == 0 {
            let began = court.borrow_mut().event();
            if let Ok(finished) = journal.finished() {
                court.borrow_mut().check(&finished, began);
            }
            continue;
        }
        let (number, payload) = {
            let mut court = court.borrow_mut();
            let began = court.event();
            let payload = (kind == 1).then_some(began);
            let changes = court.tasks.entry(task.clone()).or_default();
            changes.push(Change { payload, began, ended: None, counts: false });
            (changes.len() - 1, payload)
        };
        let done = match payload {
            Some(payload) => journal.record(&task, &payload.to_le_bytes()),
            None => journal.forget(&task),
        };
        let mut court = court.borrow_mut();
        let now = court.event();
        let change = &mut court.tasks.get_mut(&task).unwrap()[number];
        (change.ended, change.counts) = (Some(now), done.is_ok());
    }
}

fn run(seed: u64) -> Result<u64, String> {
    let mut random = Random::new(seed);
    let machine = Machine::new(seed);
    let court: Rc<RefCell<Court>> = Rc::default();
    for _ in 0..1 + random.below(3) {
        let capacity = if random.below(8) == 0 { 6000 + random.below(10_000) } else { 0 };
        machine.set_faults(Faults { capacity, short: (random.below(2) * 100) as u16, ..Faults::default() });
        let ahead = [0, 86_400_000_000_000, -86_400_000_000_000][random.below(3) as usize];
        let mut schedule = Schedule::new();
        for number in 0..1 + random.below(3) {
            let (one, ops) = (machine.process(), random.below(20));
            one.set_clock_ahead(ahead * number as i64);
            let (random, court) = (Random::new(seed ^ random.below(u64::MAX)), court.clone());
            schedule.spawn(&one.clone(), move || process(&one, random, ops, &court));
        }
        let (cut, end) = (random.below(3), random.below(400));
        let mut step = 0;
        while let Some(runnable) = schedule.runnable() {
            if step == end {
                break;
            }
            step += 1;
            schedule.step(runnable[random.below(runnable.len() as u64) as usize]);
            court.borrow_mut().wrong.take().map_or(Ok(()), Err)?;
        }
        if cut == 0 {
            machine.cut_power([Unsynced::All, Unsynced::None, Unsynced::Some][random.below(3) as usize]);
        }
        drop(schedule);
        machine.set_faults(Faults::default());
        let one = machine.process();
        let journal = Journal::open_simulated(&one, DIR).map_err(|error| format!("{error:?}"))?;
        let mut guard = court.borrow_mut();
        let now = guard.event();
        for change in guard.tasks.values_mut().flatten() {
            change.ended.get_or_insert(now);
        }
        let began = guard.event();
        let finished = journal.finished().map_err(|error| format!("{error:?}"))?;
        guard.check(&finished, began);
        if cut == 0 {
            // Only what survived the power cut counts.
            guard.tasks.clear();
            for (task, payload) in finished {
                let payload = Some(u64::from_le_bytes(payload[..8].try_into().unwrap()));
                let change = Change { payload, began, ended: Some(began), counts: true };
                guard.tasks.insert(task, vec![change]);
            }
        }
        guard.wrong.take().map_or(Ok(()), Err)?;
        drop((guard, journal));
        one.kill();
    }
    let answers = court.borrow().answers;
    Ok(answers)
}

#[test]
fn records_are_visible_to_all_processes_after_the_call() {
    let text = std::env::var("GREENWAVE_SIMULATION_SEEDS").unwrap_or_else(|_| "300".into());
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    let mut answers = 0;
    for seed in first..first + count {
        match run(seed) {
            Ok(done) => answers += done,
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    assert!(answers > 0);
}

/// Every write is divided, so that many of the kills are within one.
#[test]
fn a_kill_at_every_file_operation_loses_no_record() {
    for seed in 0..6 {
        let mut steps = 0;
        while !kill_after(seed, steps) {
            steps += 1;
        }
        assert!(steps > 50, "{steps} steps");
    }
}

/// Kills a process after some file operations. Checks what others read, before and after they
/// continue. Returns true if the process had finished.
fn kill_after(seed: u64, steps: u64) -> bool {
    let machine = Machine::new(seed);
    machine.set_faults(Faults { short: 1000, ..Faults::default() });
    let court: Rc<RefCell<Court>> = Rc::default();
    let (one, shared) = (machine.process(), court.clone());
    let mut schedule = Schedule::new();
    schedule.spawn(&one.clone(), move || process(&one, Random::new(seed), 6, &shared));
    let is_finished = (0..steps).any(|_| schedule.step(0));
    schedule.kill(0);
    machine.set_faults(Faults::default());
    let mut court = court.borrow_mut();
    let now = court.event();
    for change in court.tasks.values_mut().flatten() {
        change.ended.get_or_insert(now);
    }
    for continues in [true, false] {
        let other = machine.process();
        let journal = Journal::open_simulated(&other, DIR).unwrap();
        let began = court.event();
        court.check(&journal.finished().unwrap(), began);
        if continues {
            journal.record("another", &[1; 2000]).unwrap();
        }
    }
    assert_eq!(court.wrong, None, "seed {seed}, killed after {steps} file operations");
    is_finished
}
