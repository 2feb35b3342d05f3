//! Explores all schedules of two processes with few preemptions, and a crash after each step.
//!
//! Each schedule is run from the beginning up to a step at which another process can continue
//! (stateless search with bounded preemptions, Musuvathi and Qadeer, PLDI 2007). Two states are
//! equal if the disks are equal and each process has read the same from its disk: since the code is
//! deterministic, only one of them is explored.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use greenwave_segment::Log;
use greenwave_segment::simulation::{Machine, Schedule, Unsynced};

use crate::model::View;
use crate::run::{Recorder, key_of, options, process};
use crate::script::{LogSettings, Op};

/// Environment variable with the maximum number of preemptions, for long runs.
const PREEMPTIONS: &str = "GREENWAVE_SIMULATION_PREEMPTIONS";

const SETTINGS: LogSettings = LogSettings {
    compressed: false,
    chain_depth_max: 0,
    disk_kib_max: 0,
    drop_oldest: false,
    open_files_max: 256,
    on_demand: 0,
};

/// The second process reads the index on demand, and so did the process that filled the log.
const ON_DEMAND: LogSettings = LogSettings { on_demand: 0b10, ..SETTINGS };

/// Two programs to interleave, and the settings of their logs.
type Pair = ([Op; 3], [Op; 3], LogSettings);

const fn put(key: u8) -> Op {
    Op::Put { key, len: 700 }
}

/// Pairs of programs to interleave.
const PROGRAMS: [([Op; 3], [Op; 3]); 8] = [
    ([put(0), Op::Compact, Op::Refresh], [put(1), Op::Compact, Op::Refresh]),
    ([Op::Remove { key: 0 }, Op::Compact, Op::Flush], [put(0), Op::Compact, Op::Flush]),
    ([put(0), Op::Flush, Op::Compact], [Op::Compact, Op::Refresh, Op::Remove { key: 1 }]),
    ([Op::Compact, Op::Compact, Op::Refresh], [Op::Compact, put(2), Op::Flush]),
    (
        [Op::WriteBatch { first: 0, count: 3, len: 100 }, Op::Flush, Op::Compact],
        [put(1), Op::Compact, Op::Refresh],
    ),
    (
        [Op::Increment { counter: 0 }, Op::Compact, Op::Flush],
        [Op::Increment { counter: 0 }, Op::Compact, Op::Refresh],
    ),
    ([Op::Compact, Op::Reopen, Op::Refresh], [Op::Reopen, Op::Compact, put(0)]),
    ([Op::Remove { key: 0 }, Op::Remove { key: 1 }, Op::Compact], [Op::Refresh, Op::Compact, put(0)]),
];

/// Environment variable with the number of pairs of all programs, for long runs. They are spread
/// evenly.
const PAIRS: &str = "GREENWAVE_SIMULATION_PAIRS";
const PAIRS_USUALLY: usize = 20;
/// Environment variable with their maximum number of preemptions.
const PAIRS_PREEMPTIONS: &str = "GREENWAVE_SIMULATION_PAIRS_PREEMPTIONS";

/// Operations of all programs.
const ALPHABET: [Op; 6] = [put(0), Op::Remove { key: 0 }, Op::Compact, Op::Flush, Op::Refresh, Op::Reopen];

/// Returns all pairs of programs of three operations in which at least one program compacts.
fn all_pairs() -> Vec<([Op; 3], [Op; 3])> {
    let count = ALPHABET.len();
    let of = |number: usize| [0, 1, 2].map(|at| ALPHABET[number / count.pow(at) % count]);
    let programs: Vec<[Op; 3]> = (0..count.pow(3)).map(of).collect();
    let compacts = |program: &[Op; 3]| program.contains(&Op::Compact);
    let pairs = programs
        .iter()
        .enumerate()
        .flat_map(|(number, first)| programs[number..].iter().map(move |second| (*first, *second)));
    pairs.filter(|(first, second)| compacts(first) || compacts(second)).collect()
}

#[derive(Debug, Default)]
struct ExploreCounts {
    schedules: u64,
    states: u64,
    crashes: u64,
}

/// State of a schedule: hash of the disk and of what each process has read, steps of each process,
/// running process, number of preemptions.
type ScheduleState = (u64, [usize; 2], usize, u32);

/// Beginning of a schedule that deviates from running each process as long as possible.
#[derive(Debug, Clone)]
struct SchedulePrefix {
    choices: Vec<usize>,
    preemptions: u32,
}

fn preemptions_max(variable: &str) -> u32 {
    std::env::var(variable).map_or(1, |bound| bound.parse().unwrap())
}

#[test]
fn all_schedules_with_few_preemptions_lose_nothing() {
    let bound = preemptions_max(PREEMPTIONS);
    let pairs: Vec<Pair> = [SETTINGS, ON_DEMAND]
        .into_iter()
        .flat_map(|settings| PROGRAMS.map(|(first, second)| (first, second, settings)))
        .collect();
    explore_all(&pairs, bound, |(first, second, settings), counts| {
        let on_demand = settings.on_demand;
        crate::print_line(&format!(
            "{first:?} beside {second:?}, index on demand {on_demand:b}: at most {bound} preemptions: {counts:?}"
        ));
    });
}

#[test]
fn programs_of_three_operations_lose_nothing_with_few_preemptions() {
    let limit = std::env::var(PAIRS).map_or(PAIRS_USUALLY, |limit| limit.parse().unwrap());
    let all = all_pairs();
    let stride = all.len().div_ceil(limit.max(1)).max(1);
    let settings = [SETTINGS, ON_DEMAND].into_iter().cycle();
    let chosen: Vec<Pair> = all
        .into_iter()
        .step_by(stride)
        .zip(settings)
        .map(|((first, second), settings)| (first, second, settings))
        .collect();
    let total = std::sync::Mutex::new(ExploreCounts::default());
    let bound = preemptions_max(PAIRS_PREEMPTIONS);
    explore_all(&chosen, bound, |_, counts| {
        let mut total = total.lock().unwrap();
        total.schedules += counts.schedules;
        total.states += counts.states;
        total.crashes += counts.crashes;
    });
    let total = total.into_inner().unwrap();
    crate::print_line(&format!("{} pairs, at most {bound} preemptions: {total:?}", chosen.len()));
    assert!(!chosen.is_empty());
}

/// Explores pairs of programs on all processors.
fn explore_all(pairs: &[Pair], bound: u32, on_counts: impl Fn(&Pair, ExploreCounts) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(pair) = pairs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    on_counts(pair, explore(pair, bound));
                }
            });
        }
    });
}

fn explore(pair: &Pair, bound: u32) -> ExploreCounts {
    let mut counts = ExploreCounts::default();
    let mut seen: HashSet<ScheduleState> = HashSet::new();
    let mut crashed: HashSet<u64> = HashSet::new();
    let mut open = vec![SchedulePrefix { choices: Vec::new(), preemptions: 0 }];
    while let Some(prefix) = open.pop() {
        counts.schedules += 1;
        run_schedule(pair, &prefix, bound, &mut seen, &mut crashed, &mut open, &mut counts);
    }
    counts
}

/// Runs a schedule up to a state explored before, or to its end.
fn run_schedule(
    (first, second, settings): &Pair,
    prefix: &SchedulePrefix,
    bound: u32,
    seen: &mut HashSet<ScheduleState>,
    crashed: &mut HashSet<u64>,
    open: &mut Vec<SchedulePrefix>,
    counts: &mut ExploreCounts,
) {
    let (machine, recorder) = prepared_log(*settings);
    let (programs, settings) = ([first, second], *settings);
    let mut schedule = Schedule::new();
    for (who, ops) in programs.iter().enumerate() {
        let one = machine.process();
        let (ops, recorder) = (ops.to_vec(), recorder.clone());
        schedule.spawn(&one.clone(), move || process(who, &one, settings, &ops, &recorder));
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
                        open.push(SchedulePrefix { choices, preemptions });
                    }
                }
                check_crash(&machine, settings, &recorder, crashed, counts);
                usual
            }
        };
        current = choice;
        choices.push(choice);
        steps[choice] += 1;
        schedule.step(choice);
        if let Some(violation) = recorder.borrow_mut().violation.take() {
            panic!("{programs:?}, schedule {choices:?}: {violation}");
        }
    }
    check_crash(&machine, settings, &recorder, crashed, counts);
}

/// Creates a log whose first segments are mostly dead but contain some live values.
fn prepared_log(settings: LogSettings) -> (Machine, Rc<RefCell<Recorder>>) {
    let machine = Machine::new(1);
    machine.hash_reads();
    let recorder: Rc<RefCell<Recorder>> = Rc::default();
    let one = machine.process();
    let ops: Vec<Op> = [0, 1, 9, 9, 9, 2, 9, 9, 9, 9, 9].into_iter().map(put).chain([Op::Flush]).collect();
    process(9, &one, settings, &ops, &recorder);
    one.kill();
    let violation = recorder.borrow_mut().violation.take();
    assert_eq!(violation, None);
    (machine, recorder)
}

/// Checks the log after a crash in the current state: of the processes, or of the machine with a
/// part of the unsynced data or none.
fn check_crash(
    machine: &Machine,
    settings: LogSettings,
    recorder: &Rc<RefCell<Recorder>>,
    crashed: &mut HashSet<u64>,
    counts: &mut ExploreCounts,
) {
    if !crashed.insert(machine.disk_digest() ^ recorder.borrow().model.digest()) {
        return;
    }
    for unsynced in [None, Some(Unsynced::None), Some(Unsynced::Some), Some(Unsynced::Some)] {
        counts.crashes += 1;
        let after = machine.fork();
        let mut model = recorder.borrow().model.clone();
        if let Some(unsynced) = unsynced {
            after.cut_power(unsynced);
            model.record_crash();
        }
        let mut view = View::default();
        model.require_acknowledged(&mut view);
        let one = after.process();
        let log = Log::open_simulated(&one, "/log", options(&settings)).unwrap();
        for compacted in [false, true] {
            if compacted {
                log.compact().unwrap();
            }
            for key in (0..10).map(key_of) {
                let got = log.get(&key).unwrap();
                if let Err(violation) = model.check(&view, &key, got.as_deref()) {
                    panic!("after a crash ({unsynced:?}), compacted {compacted}: {violation}");
                }
            }
        }
    }
}
