//! All schedules of two processes with few preemptions, and a crash at each step of each.
//!
//! A schedule is followed again from the beginning for each place where another process could have gone on (stateless search,
//! preemptions bounded as by Musuvathi and Qadeer, PLDI 2007). Two places are the same when the disk is, and each process has learnt the same
//! from it: the code is deterministic, so it goes on alike, and one of them is enough.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use greenwave_segment::Log;
use greenwave_segment::simulation::{Machine, Schedule, Unsynced};

use crate::model::View;
use crate::run::{Court, key_of, options, process};
use crate::script::{Op, Setting};

/// Preemptions at most, for the long run.
const PREEMPTIONS: &str = "GREENWAVE_SIMULATION_PREEMPTIONS";

const SETTING: Setting = Setting {
    compressed: false,
    chain_depth_max: 0,
    disk_kib_max: 0,
    drop_oldest: false,
    open_files_max: 256,
};

const fn put(key: u8) -> Op {
    Op::Put { key, len: 700 }
}

/// What the processes do, each three operations.
const PROGRAMS: [([Op; 3], [Op; 3]); 8] = [
    ([put(0), Op::Compact, Op::Refresh], [put(1), Op::Compact, Op::Refresh]),
    ([Op::Remove { key: 0 }, Op::Compact, Op::Flush], [put(0), Op::Compact, Op::Flush]),
    ([put(0), Op::Flush, Op::Compact], [Op::Compact, Op::Refresh, Op::Remove { key: 1 }]),
    ([Op::Compact, Op::Compact, Op::Refresh], [Op::Compact, put(2), Op::Flush]),
    (
        [Op::Batch { first: 0, count: 3, len: 100 }, Op::Flush, Op::Compact],
        [put(1), Op::Compact, Op::Refresh],
    ),
    (
        [Op::Increment { counter: 0 }, Op::Compact, Op::Flush],
        [Op::Increment { counter: 0 }, Op::Compact, Op::Refresh],
    ),
    ([Op::Compact, Op::Reopen, Op::Refresh], [Op::Reopen, Op::Compact, put(0)]),
    ([Op::Remove { key: 0 }, Op::Remove { key: 1 }, Op::Compact], [Op::Refresh, Op::Compact, put(0)]),
];

#[derive(Debug, Default)]
struct Counts {
    schedules: u64,
    states: u64,
    crashes: u64,
}

/// What goes on from a place: the disk and what each process has learnt from it, how far each is, which one runs, and the
/// preemptions so far.
type State = (u64, [usize; 2], usize, u32);

/// Where a schedule leaves the rule that a process goes on as long as it can.
#[derive(Debug, Clone)]
struct Prefix {
    choices: Vec<usize>,
    preemptions: u32,
}

#[test]
fn all_schedules_with_few_preemptions_lose_nothing() {
    let bound = std::env::var(PREEMPTIONS).map_or(1, |bound| bound.parse().unwrap());
    let programs = &PROGRAMS;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((first, second)) =
                    programs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let counts = explore([first, second], bound);
                    crate::say(&format!(
                        "{first:?} beside {second:?}: at most {bound} preemptions: {counts:?}"
                    ));
                }
            });
        }
    });
}

fn explore(programs: [&[Op; 3]; 2], bound: u32) -> Counts {
    let mut counts = Counts::default();
    let mut seen: HashSet<State> = HashSet::new();
    let mut crashed: HashSet<u64> = HashSet::new();
    let mut open = vec![Prefix { choices: Vec::new(), preemptions: 0 }];
    while let Some(prefix) = open.pop() {
        counts.schedules += 1;
        follow(programs, &prefix, bound, &mut seen, &mut crashed, &mut open, &mut counts);
    }
    counts
}

/// Follows one schedule to a state that was seen before, or to its end.
fn follow(
    programs: [&[Op; 3]; 2],
    prefix: &Prefix,
    bound: u32,
    seen: &mut HashSet<State>,
    crashed: &mut HashSet<u64>,
    open: &mut Vec<Prefix>,
    counts: &mut Counts,
) {
    let (machine, court) = prepared();
    let mut schedule = Schedule::new();
    for (who, ops) in programs.iter().enumerate() {
        let one = machine.process();
        let (ops, court) = (ops.to_vec(), court.clone());
        schedule.spawn(&one.clone(), move || process(who, &one, SETTING, &ops, &court));
    }
    let mut choices: Vec<usize> = Vec::new();
    let (mut current, mut steps) = (0, [0; 2]);
    while let Some(runnable) = schedule.runnable() {
        let number = choices.len();
        let can_go_on = runnable.contains(&current);
        let choice = match prefix.choices.get(number) {
            Some(choice) => *choice,
            None => {
                let usual = if can_go_on { current } else { runnable[0] };
                if !seen.insert((machine.digest(), steps, current, prefix.preemptions)) {
                    return;
                }
                counts.states += 1;
                for other in runnable.iter().filter(|other| **other != usual) {
                    let preemptions = prefix.preemptions + u32::from(can_go_on);
                    if preemptions <= bound {
                        let choices = choices.iter().copied().chain([*other]).collect();
                        open.push(Prefix { choices, preemptions });
                    }
                }
                crash(&machine, &court, crashed, counts);
                usual
            }
        };
        current = choice;
        choices.push(choice);
        steps[choice] += 1;
        schedule.step(choice);
        if let Some(wrong) = court.borrow_mut().wrong.take() {
            panic!("{programs:?}, schedule {choices:?}: {wrong}");
        }
    }
    crash(&machine, &court, crashed, counts);
}

/// A log whose first segments are mostly dead, with some values that live in them.
fn prepared() -> (Machine, Rc<RefCell<Court>>) {
    let machine = Machine::new(1);
    let court: Rc<RefCell<Court>> = Rc::default();
    let one = machine.process();
    let ops: Vec<Op> = [0, 1, 9, 9, 9, 2, 9, 9, 9, 9, 9].into_iter().map(put).chain([Op::Flush]).collect();
    process(9, &one, SETTING, &ops, &court);
    one.kill();
    let wrong = court.borrow_mut().wrong.take();
    assert_eq!(wrong, None);
    (machine, court)
}

/// What there would be after a crash here: of the processes, or of the machine with all, none or a part of what was not synced.
fn crash(machine: &Machine, court: &Rc<RefCell<Court>>, crashed: &mut HashSet<u64>, counts: &mut Counts) {
    if !crashed.insert(machine.disk_digest() ^ court.borrow().model.digest()) {
        return;
    }
    for unsynced in [None, Some(Unsynced::None), Some(Unsynced::Some), Some(Unsynced::Some)] {
        counts.crashes += 1;
        let after = machine.fork();
        let mut model = court.borrow().model.clone();
        if let Some(unsynced) = unsynced {
            after.cut_power(unsynced);
            model.lost_power();
        }
        let mut view = View::default();
        model.see(&mut view);
        let one = after.process();
        let log = Log::open_simulated(&one, "/log", options(&SETTING)).unwrap();
        for compacted in [false, true] {
            if compacted {
                log.compact().unwrap();
            }
            for key in (0..10).map(key_of) {
                let got = log.get(&key).unwrap();
                if let Err(wrong) = model.check(&view, &key, got.as_deref()) {
                    panic!("after a crash ({unsynced:?}), compacted {compacted}: {wrong}");
                }
            }
        }
    }
}
