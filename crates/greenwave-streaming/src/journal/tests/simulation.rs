//! Tests the journal on a simulated machine: after a kill or a power cut, the replayed units are a
//! prefix of the recorded ones that includes all flushed ones.

use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced};
use greenwave_testkit::random::Random;

use super::super::Journal;
use super::{events, seen};
use std::cell::RefCell;
use std::rc::Rc;

const DIR: &str = "/journal";
const TURNS: u64 = 2;

/// A state of a response: the number of removals, the attempt and the number of recorded units.
type Progress = (u32, u32, u64);

#[derive(Debug, Clone, Copy, Default)]
struct ResponseState {
    /// The last confirmed state.
    now: Progress,
    next: Progress,
    flushed: Progress,
}

#[derive(Debug, Default)]
struct Expectation {
    responses: [ResponseState; TURNS as usize],
    violation: Option<String>,
}

/// Replays a response, then records more. Each turn has one writer, the process of the same number.
fn process(turn: u64, machine: &Process, mut random: Random, ops: u64, expected: &Rc<RefCell<Expectation>>) {
    let Ok(journal) = Journal::open_simulated(machine, DIR) else { return };
    let Ok(at) = replayed(&journal, turn, expected) else { return };
    let mut at = at;
    for _ in 0..ops {
        let (removals, attempt, sequence) = at;
        let next = match random.below(20) {
            0 => (removals + 1, 0, 0),
            1 => (removals, attempt + 1, 0),
            2..5 => at,
            _ => (removals, attempt, sequence + 2),
        };
        expected.borrow_mut().responses[turn as usize].next = next;
        let done = if next == at {
            journal.flush()
        } else if next.0 > removals {
            journal.remove(turn)
        } else if next.1 > attempt {
            journal.supersede(turn, next.1)
        } else {
            journal.append(turn, attempt, &events().renumbered(sequence))
        };
        // The disk is full, and the record was not written.
        if done.is_err() {
            return;
        }
        let response = &mut expected.borrow_mut().responses[turn as usize];
        response.now = next;
        if next == at {
            response.flushed = at;
        }
        at = next;
    }
}

/// Replays a response and compares it with the recorded state.
fn replayed(journal: &Journal, turn: u64, expected: &Rc<RefCell<Expectation>>) -> Result<Progress, ()> {
    let read = || {
        let mut replay = journal.replay(turn)?;
        let (attempt, mut sequence) = (replay.attempt(), 0);
        while let Some(batch) = journal.next(&mut replay)? {
            let whole = seen(&batch) == seen(&events()) && batch.first_sequence() == sequence;
            if !whole {
                expected.borrow_mut().violation.get_or_insert(format!("turn {turn}: a gap at {sequence}"));
            }
            sequence += batch.len() as u64;
        }
        Ok::<_, crate::Error>((attempt, sequence))
    };
    let (attempt, sequence) = match read() {
        Ok(read) => read,
        Err(error) => {
            let text = format!("{error:?}");
            if !text.contains("killed") && !text.contains("StorageFull") {
                expected.borrow_mut().violation.get_or_insert(format!("turn {turn}: {text}"));
            }
            return Err(());
        }
    };
    let mut guard = expected.borrow_mut();
    let response = &mut guard.responses[turn as usize];
    let (low, high) = (response.flushed, response.next.max(response.now));
    // The number of removals cannot be observed.
    let fits = (low.0..=high.0)
        .rev()
        .map(|removals| (removals, attempt, sequence))
        .find(|at| (low..=high).contains(at));
    match fits {
        Some(at) => *response = ResponseState { now: at, next: at, flushed: low },
        None => {
            let text = format!("turn {turn}: replayed {attempt}, {sequence}; recorded {response:?}");
            guard.violation.get_or_insert(text);
        }
    }
    Ok(fits.unwrap_or_default())
}

fn run(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let machine = Machine::new(seed);
    let expected: Rc<RefCell<Expectation>> = Rc::default();
    for _ in 0..1 + random.below(4) {
        let capacity = if random.below(8) == 0 { 6000 + random.below(10_000) } else { 0 };
        machine.set_faults(Faults { capacity, short: (random.below(2) * 100) as u16, ..Faults::default() });
        let mut schedule = Schedule::new();
        for turn in 0..TURNS {
            let (one, ops) = (machine.process(), random.below(30));
            let (random, expected) = (Random::new(seed ^ random.below(u64::MAX)), expected.clone());
            schedule.spawn(&one.clone(), move || process(turn, &one, random, ops, &expected));
        }
        let (cut, end) = (random.below(3) == 0, random.below(300));
        let mut step = 0;
        while let Some(runnable) = schedule.runnable() {
            if step == end {
                break;
            }
            step += 1;
            schedule.step(runnable[random.below(runnable.len() as u64) as usize]);
        }
        if cut {
            machine.cut_power([Unsynced::All, Unsynced::None, Unsynced::Some][random.below(3) as usize]);
        }
        drop(schedule);
        machine.set_faults(Faults::default());
        let one = machine.process();
        let journal = Journal::open_simulated(&one, DIR).map_err(|error| format!("{error:?}"))?;
        for turn in 0..TURNS {
            let at = replayed(&journal, turn, &expected);
            if let (true, Ok(at)) = (cut, at) {
                expected.borrow_mut().responses[turn as usize].flushed = at;
            }
        }
        drop(journal);
        one.kill();
        expected.borrow_mut().violation.take().map_or(Ok(()), Err)?;
    }
    Ok(())
}

#[test]
fn replayed_units_are_a_prefix_of_recorded_units() {
    let text = std::env::var("GREENWAVE_SIMULATION_SEEDS").unwrap_or_else(|_| "300".into());
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    for seed in first..first + count {
        if let Err(violation) = run(seed) {
            panic!("seed {seed}: {violation}");
        }
    }
}

/// Every write is divided, so that many of the kills are within one.
#[test]
fn a_kill_at_every_file_operation_loses_no_recorded_unit() {
    for seed in 0..6 {
        let mut steps = 0;
        while !kill_after(seed, steps) {
            steps += 1;
        }
        assert!(steps > 50, "{steps} steps");
    }
}

/// Kills a process after some file operations. Checks what others replay, before and after they
/// continue. Returns true if the process had finished.
fn kill_after(seed: u64, steps: u64) -> bool {
    let machine = Machine::new(seed);
    machine.set_faults(Faults { short: 1000, ..Faults::default() });
    let expected: Rc<RefCell<Expectation>> = Rc::default();
    let (one, shared) = (machine.process(), expected.clone());
    let mut schedule = Schedule::new();
    schedule.spawn(&one.clone(), move || process(0, &one, Random::new(seed), 8, &shared));
    let is_finished = (0..steps).any(|_| schedule.step(0));
    schedule.kill(0);
    machine.set_faults(Faults::default());
    {
        // A kill loses nothing that was recorded, whether it was flushed or not.
        let response = &mut expected.borrow_mut().responses[0];
        response.flushed = response.now;
    }
    for continues in [true, false] {
        let other = machine.process();
        let journal = Journal::open_simulated(&other, DIR).unwrap();
        let replayed = replayed(&journal, 0, &expected);
        if continues && replayed.is_ok() {
            journal.append(1, 0, &events()).unwrap();
        }
    }
    let violation = expected.borrow_mut().violation.take();
    assert_eq!(violation, None, "seed {seed}, killed after {steps} file operations");
    is_finished
}
