//! Compares dispatchers of whole runs with those that the search restores from a state.
//!
//! A random run keeps its dispatcher, with all tasks that have ended and everything that earlier
//! events left behind. Each of its steps must start the same tasks in the same order as a step from
//! the restored state, and lead to the same state.

use std::cmp::Reverse;
use std::time::Duration;

use greenwave_testkit::random::Random;

use super::super::{DispatchEvent, Dispatcher};
use super::search::graphs;
use super::state::{KINDS, OpenTask, Setting, State, WORKERS, bits_of};
use super::step::{ChosenKinds, Machine, Step, canonical, depends, limits, needs_of, open_task};
use crate::{Action, Addition, GraphBuilder, OnFailure, TaskId, TaskState};

struct RealTask {
    rank: u64,
    /// Needs of the current stage.
    kind: u8,
    after: Vec<usize>,
}

/// A run with its dispatcher.
struct RealRun {
    setting: Setting,
    on_failure: OnFailure,
    dispatcher: Dispatcher,
    tasks: Vec<RealTask>,
    now: Duration,
    is_paused: bool,
    is_stopped: bool,
    actions: Vec<Action>,
}

impl RealRun {
    /// Creates a run of a graph, with tasks that an earlier run has finished.
    fn new(random: &mut Random, setting: Setting, graph: &State) -> Self {
        let mut builder = GraphBuilder::new();
        let mut tasks = Vec::new();
        for (at, task) in graph.tasks().iter().enumerate() {
            let OpenTask::Waiting { after } = *task else { unreachable!("no task has begun") };
            builder.task(at.to_string(), ());
            bits_of(after).for_each(|before| {
                builder.depends_on(at.to_string(), before.to_string());
            });
            let (rank, kind) = (random.below(4), random.below(setting.kinds.into()) as u8);
            tasks.push(RealTask { rank, kind, after: bits_of(after).collect() });
        }
        let on_failure = *random.one_of(&[OnFailure::KeepGoing, OnFailure::StopAtFirst]);
        let limits = crate::Limits { on_failure, ..limits(&setting) };
        let ranks: Vec<u64> = tasks.iter().map(|task| task.rank).collect();
        let needs = |task: TaskId| needs_of(tasks[task.index()].kind);
        let mut dispatcher = Dispatcher::new(&builder.build().unwrap(), limits, &ranks, needs).unwrap();
        for (at, task) in tasks.iter().enumerate() {
            let are_done = task.after.iter().all(|before| is_done(&dispatcher, *before));
            if are_done && random.chance(10) {
                dispatcher.already_done(TaskId::from_index(at));
            }
        }
        let (is_paused, is_stopped) = (false, false);
        let (now, actions) = (Duration::ZERO, Vec::new());
        Self { setting, on_failure, dispatcher, tasks, now, is_paused, is_stopped, actions }
    }

    fn state_of(&self, at: usize) -> TaskState {
        self.dispatcher.state(TaskId::from_index(at))
    }

    /// Returns the tasks that have not ended, in order of priority.
    fn open(&self) -> Vec<usize> {
        let is_open = |at: &usize| {
            !matches!(self.state_of(*at), TaskState::Done | TaskState::Failed | TaskState::Skipped(_))
        };
        let mut open: Vec<usize> = (0..self.tasks.len()).filter(is_open).collect();
        open.sort_by_key(|at| (Reverse(self.tasks[*at].rank), *at));
        open
    }

    /// Returns the state as the search sees it.
    fn state(&self) -> State {
        let open = self.open();
        let bits = |at: usize| {
            let after = &self.tasks[open[at]].after;
            (0..open.len()).filter(|slot| after.contains(&open[*slot])).fold(0, |bits, slot| bits | 1 << slot)
        };
        let task = |at: usize| {
            let id = TaskId::from_index(open[at]);
            let (kind, has_slot) = (self.tasks[open[at]].kind, self.dispatcher.tasks[open[at]].has_slot);
            let of_stage = (kind, has_slot, self.dispatcher.overtaken(id));
            (bits(at), open_task(&self.setting, self.is_stopped, self.dispatcher.state(id), of_stage))
        };
        let admitted = self.dispatcher.stats().pool("workers").unwrap().admitted;
        let globals = State {
            admitted: if self.is_stopped { WORKERS } else { admitted },
            is_paused: self.is_paused && !self.is_stopped,
            is_stopped: self.is_stopped,
            ..State::EMPTY
        };
        canonical(0..open.len(), |at| at, task, globals)
    }

    /// Chooses a step at random. Returns `None` if nothing can happen.
    fn choose(&self, random: &mut Random, state: &State) -> Option<Step> {
        let kind = random.below(self.setting.kinds.into()) as u8;
        let running = state.positions(|task| matches!(task, OpenTask::Running { .. }));
        let delayed = state.positions(|task| matches!(task, OpenTask::Delayed { .. }));
        let mut steps = Vec::new();
        for at in bits_of(running) {
            steps.extend([Step::Done(at), Step::Done(at), Step::Next(at, kind), Step::Retry(at)]);
            if random.chance(30) {
                steps.extend([Step::Failed(at, self.on_failure), Step::TooLarge(at)]);
            }
        }
        if delayed != 0 {
            steps.push(Step::Tick { woken: self.due() });
        }
        if !state.is_stopped {
            steps.push(if state.is_paused { Step::Resume } else { Step::Pause });
            steps.push(Step::Admit(random.below(WORKERS as u64 + 1) as u32));
            if random.chance(3) {
                steps.push(Step::Stop);
            }
        }
        steps.extend(self.addition(random, state, kind));
        (!steps.is_empty()).then(|| *random.one_of(&steps))
    }

    /// Returns the positions of the tasks whose retry is due next.
    fn due(&self) -> u8 {
        let wakes_at = self.dispatcher.wakes_at();
        let is_due = |at: &usize| matches!(self.state_of(*at), TaskState::Delayed(until) if wakes_at.is_some_and(|at| until <= at));
        let open = self.open();
        (0..open.len()).filter(|slot| is_due(&open[*slot])).fold(0, |bits, slot| bits | 1 << slot)
    }

    /// Returns a random addition of a task. The rank follows from the position.
    fn addition(&self, random: &mut Random, state: &State, kind: u8) -> Option<Step> {
        let chosen = |random: &mut Random, from: u8| {
            bits_of(from).filter(|_| random.chance(40)).fold(0_u8, |bits, at| bits | 1 << at)
        };
        let waiting = state.positions(|task| matches!(task, OpenTask::Waiting { .. }));
        let has_failed = (0..self.tasks.len()).any(|at| self.state_of(at) == TaskState::Failed);
        if has_failed && random.chance(20) {
            return Some(Step::AddAfterFailed { before: chosen(random, waiting) });
        }
        if state.len == self.setting.tasks || self.tasks.len() > 40 {
            return None;
        }
        let after = chosen(random, (1 << state.len) - 1);
        let is_free =
            |later: &usize| bits_of(after).all(|before| before != *later && !depends(state, before, *later));
        let free = bits_of(waiting).filter(is_free).fold(0, |bits, at| bits | 1 << at);
        let open = self.open();
        let position = match random.below(state.len as u64 + 1) as usize {
            0 => 0,
            // Equal ranks are in order of addition, so the task comes after all of that rank.
            at => open.partition_point(|other| self.tasks[*other].rank >= self.tasks[open[at - 1]].rank),
        };
        Some(Step::Add { position, kind, after, before: chosen(random, free) })
    }

    /// Takes a step. Returns the started tasks.
    fn take(&mut self, random: &mut Random, step: Step, open: &[usize]) -> Vec<usize> {
        self.actions.clear();
        let id = |at: usize| TaskId::from_index(open[at]);
        let too_large = crate::Needs::nothing().of("workers", WORKERS + 1);
        let next_needs = if let Step::Next(_, kind) = step { needs_of(kind) } else { too_large };
        let event = match step {
            Step::Begin => DispatchEvent::Begin,
            Step::Next(at, _) | Step::TooLarge(at) => DispatchEvent::Next(id(at), &next_needs),
            Step::Done(at) => DispatchEvent::Done(id(at)),
            Step::Failed(at, _) => DispatchEvent::Failed(id(at)),
            Step::Retry(at) => DispatchEvent::Retry(id(at), Duration::from_secs(1 + random.below(3))),
            Step::Tick { .. } => {
                self.now = self.dispatcher.wakes_at().unwrap();
                DispatchEvent::Tick
            }
            Step::Pause => DispatchEvent::Pause,
            Step::Resume => DispatchEvent::Resume,
            Step::Stop => DispatchEvent::Stop,
            Step::Admit(units) => DispatchEvent::Admit("workers", units),
            Step::Add { .. } | Step::AddAfterFailed { .. } => {
                self.add(random, step, open);
                return self.starts();
            }
        };
        let result = self.dispatcher.handle(self.now, event, &mut self.actions);
        assert_eq!(result.is_err(), matches!(step, Step::TooLarge(_)));
        match step {
            Step::Next(at, kind) => self.tasks[open[at]].kind = kind,
            Step::Pause => self.is_paused = true,
            Step::Resume => self.is_paused = false,
            Step::Stop => self.is_stopped = true,
            Step::Failed(..) | Step::TooLarge(_) => {
                self.is_stopped |= self.on_failure == OnFailure::StopAtFirst;
            }
            _ => {}
        }
        self.starts()
    }

    fn add(&mut self, random: &mut Random, step: Step, open: &[usize]) {
        let ids = |bits: u8| bits_of(bits).map(|at| open[at]).collect::<Vec<_>>();
        let with_state = |state: TaskState| {
            (0..self.tasks.len()).filter(|at| self.state_of(*at) == state).collect::<Vec<_>>()
        };
        let done = with_state(TaskState::Done);
        let (rank, kind, mut after, before) = match step {
            Step::Add { position, kind, after, before } => {
                let rank = if position == 0 {
                    100 + self.tasks.len() as u64
                } else {
                    self.tasks[open[position - 1]].rank
                };
                (rank, kind, ids(after), ids(before))
            }
            Step::AddAfterFailed { before } => {
                (0, 0, vec![*random.one_of(&with_state(TaskState::Failed))], ids(before))
            }
            _ => unreachable!("the step adds a task"),
        };
        // A dependency on a task that is done makes no difference.
        after.extend(done.first());
        let [after_ids, before_ids] =
            [&after, &before].map(|ids| ids.iter().map(|at| TaskId::from_index(*at)).collect::<Vec<_>>());
        let addition =
            Addition { id: "added", rank, needs: &needs_of(kind), after: &after_ids, before: &before_ids };
        let id = self.dispatcher.add(self.now, addition, &mut self.actions).unwrap().index();
        self.tasks.push(RealTask { rank, kind, after });
        before.iter().for_each(|later| self.tasks[*later].after.push(id));
    }

    fn starts(&mut self) -> Vec<usize> {
        let start = |action: &Action| match action {
            Action::Start(task) => Some(task.index()),
            Action::Skip(..) => None,
        };
        self.actions.iter().filter_map(start).collect()
    }
}

fn is_done(dispatcher: &Dispatcher, at: usize) -> bool {
    dispatcher.state(TaskId::from_index(at)) == TaskState::Done
}

/// Compares the steps of a random run. Returns their number.
fn compare(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let tasks = 2 + random.below(3) as usize;
    let setting = Setting {
        tasks,
        tasks_max: *random.one_of(&[1, 2, 3, usize::MAX]),
        overtakes_max: *random.one_of(&[0, 1, 2, u32::MAX]),
        kinds: 1 + random.below(KINDS.len() as u64) as u8,
    };
    let graph = *random.one_of(&graphs(tasks));
    let mut run = RealRun::new(&mut random, setting, &graph);
    let mut machine = Machine::new(&setting);
    let mut step = Some(Step::Begin);
    for number in 0..80 {
        let (before, open) = (run.state(), run.open());
        let mut kinds = ChosenKinds::default();
        open.iter().enumerate().for_each(|(slot, at)| kinds[slot] = run.tasks[*at].kind);
        let Some(taken) = step else { return Ok(number) };
        let started = run.take(&mut random, taken, &open);
        let slot_of = |at: usize| open.iter().position(|other| *other == at).unwrap_or(open.len());
        let started: Vec<usize> = started.into_iter().map(slot_of).collect();
        let is_collapsed = before.is_stopped && matches!(taken, Step::Next(..));
        let model_step = match taken {
            // A stopped run does not distinguish the needs of ready tasks.
            Step::Next(at, _) if is_collapsed => Step::Next(at, 0),
            Step::Failed(at, on_failure) => Step::Failed(at, on_failure),
            other => other,
        };
        let expected = machine.step(&before, model_step, &kinds)?;
        // A stage that needs too much fails its task, and with it perhaps the run.
        let stops = matches!(taken, Step::TooLarge(_)) && run.on_failure == OnFailure::StopAtFirst;
        let state = run.state();
        if !stops && (state != expected || started != machine.starts()) {
            return Err(format!(
                "{setting:?}\n{before:?}\n{taken:?} with needs {kinds:?} starts {started:?}:\n{state:?}\n\
                 a restored dispatcher starts {:?}:\n{expected:?}",
                machine.starts()
            ));
        }
        step = run.choose(&mut random, &state);
    }
    Ok(80)
}

#[test]
fn restored_dispatchers_act_like_those_of_whole_runs() {
    let seeds = greenwave_testkit::simulation::seeds("GREENWAVE_SCHEDULER_WALKS", 4_000);
    let mut steps = 0;
    for seed in seeds {
        steps += compare(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    println!("{steps} steps");
    assert!(steps > 50_000, "{steps} steps: the runs ended early");
}
