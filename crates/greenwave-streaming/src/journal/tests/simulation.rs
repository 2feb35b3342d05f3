//! The journal on a simulated machine: whenever a process is killed or the power is cut, what is replayed is a beginning of what was
//! recorded, with all that was flushed.

use greenwave_segment::simulation::{Faults, Machine, Process, Schedule, Unsynced};

use super::super::Journal;
use super::{events, seen};
use std::cell::RefCell;
use std::rc::Rc;

const DIR: &str = "/journal";
const TURNS: u64 = 2;

/// A random number generator whose every draw is determined by its seed (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// A moment of an answer: its attempt and the units recorded of it. Times it was forgotten come first.
type At = (u32, u32, u64);

#[derive(Debug, Clone, Copy, Default)]
struct Answer {
    /// What has been recorded for sure, and what is being recorded.
    now: At,
    next: At,
    flushed: At,
}

#[derive(Debug, Default)]
struct Court {
    answers: [Answer; TURNS as usize],
    wrong: Option<String>,
}

/// Replays what is there, then records more. Each turn has one writer: the process of its number.
fn process(turn: u64, machine: &Process, mut random: Random, ops: u64, court: &Rc<RefCell<Court>>) {
    let Ok(journal) = Journal::open_simulated(machine, DIR) else { return };
    let Ok(at) = replayed(&journal, turn, court) else { return };
    let mut at = at;
    for _ in 0..ops {
        let (forgotten, attempt, sequence) = at;
        let next = match random.below(20) {
            0 => (forgotten + 1, 0, 0),
            1 => (forgotten, attempt + 1, 0),
            2..5 => at,
            _ => (forgotten, attempt, sequence + 2),
        };
        court.borrow_mut().answers[turn as usize].next = next;
        let done = if next == at {
            journal.flush()
        } else if next.0 > forgotten {
            journal.remove(turn)
        } else if next.1 > attempt {
            journal.supersede(turn, next.1)
        } else {
            journal.append(turn, attempt, &events().renumbered(sequence))
        };
        // A full disk: what was to be recorded is not.
        if done.is_err() {
            return;
        }
        let answer = &mut court.borrow_mut().answers[turn as usize];
        answer.now = next;
        if next == at {
            answer.flushed = at;
        }
        at = next;
    }
}

/// What a journal replays of an answer, checked against what was recorded.
fn replayed(journal: &Journal, turn: u64, court: &Rc<RefCell<Court>>) -> Result<At, ()> {
    let read = || {
        let mut replay = journal.replay(turn)?;
        let (attempt, mut sequence) = (replay.attempt(), 0);
        while let Some(batch) = journal.next(&mut replay)? {
            let whole = seen(&batch) == seen(&events()) && batch.first_sequence() == sequence;
            if !whole {
                court.borrow_mut().wrong.get_or_insert(format!("turn {turn}: a gap at {sequence}"));
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
                court.borrow_mut().wrong.get_or_insert(format!("turn {turn}: {text}"));
            }
            return Err(());
        }
    };
    let mut guard = court.borrow_mut();
    let answer = &mut guard.answers[turn as usize];
    let (low, high) = (answer.flushed, answer.next.max(answer.now));
    // Which of the times that it was forgotten this is after does not show.
    let fits = (low.0..=high.0)
        .rev()
        .map(|forgotten| (forgotten, attempt, sequence))
        .find(|at| (low..=high).contains(at));
    match fits {
        Some(at) => *answer = Answer { now: at, next: at, flushed: low },
        None => {
            let text = format!("turn {turn}: replayed {attempt}, {sequence}; recorded {answer:?}");
            guard.wrong.get_or_insert(text);
        }
    }
    Ok(fits.unwrap_or_default())
}

fn run(seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let machine = Machine::new(seed);
    let court: Rc<RefCell<Court>> = Rc::default();
    for _ in 0..1 + random.below(4) {
        let capacity = if random.below(8) == 0 { 6000 + random.below(10_000) } else { 0 };
        machine.set_faults(Faults { capacity, short: (random.below(2) * 100) as u16, ..Faults::default() });
        let mut schedule = Schedule::new();
        for turn in 0..TURNS {
            let (one, ops) = (machine.process(), random.below(30));
            let (random, court) = (Random(seed ^ random.below(u64::MAX)), court.clone());
            schedule.spawn(&one.clone(), move || process(turn, &one, random, ops, &court));
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
            let at = replayed(&journal, turn, &court);
            if let (true, Ok(at)) = (cut, at) {
                court.borrow_mut().answers[turn as usize].flushed = at;
            }
        }
        drop(journal);
        one.kill();
        court.borrow_mut().wrong.take().map_or(Ok(()), Err)?;
    }
    Ok(())
}

#[test]
fn what_is_replayed_is_a_beginning_of_what_was_recorded() {
    let text = std::env::var("GREENWAVE_SIMULATION_SEEDS").unwrap_or_else(|_| "300".into());
    let (count, first) = text.split_once('@').unwrap_or((&text, "0"));
    let (count, first): (u64, u64) = (count.parse().unwrap(), first.parse().unwrap());
    for seed in first..first + count {
        if let Err(wrong) = run(seed) {
            panic!("seed {seed}: {wrong}");
        }
    }
}
