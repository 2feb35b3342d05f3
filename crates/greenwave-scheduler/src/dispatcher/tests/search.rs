//! Explores all states of a setting.

use super::state::{KINDS, Numbering, OpenTask, Setting, State, WORKERS, bits_of};
use super::step::{ChosenKinds, Machine, Step, canonical, depends};
use crate::OnFailure;

/// The result of a search.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) states: u64,
    pub(super) steps: u64,
}

/// A search in progress.
struct Search {
    setting: Setting,
    numbering: Numbering,
    machine: Machine,
    /// A bit for each number of a state.
    seen: Vec<u64>,
    open: Vec<u64>,
    figures: Figures,
}

/// Explores all states that can be reached, and checks the invariants of every step.
pub(super) fn explore(setting: &Setting) -> Result<Figures, String> {
    let numbering = Numbering::new(setting);
    let words = usize::try_from(numbering.len().div_ceil(64)).unwrap();
    let mut search = Search {
        setting: *setting,
        numbering,
        machine: Machine::new(setting),
        seen: vec![0; words],
        open: Vec::new(),
        figures: Figures::default(),
    };
    search.begin()?;
    while let Some(number) = search.open.pop() {
        let state = numbering.state(number);
        search.expand(&state)?;
    }
    Ok(search.figures)
}

impl Search {
    /// Begins a run of every graph, in every state in which a run can begin.
    fn begin(&mut self) -> Result<(), String> {
        for tasks in 0..=self.setting.tasks {
            for graph in graphs(tasks) {
                for admitted in 0..=WORKERS {
                    for is_paused in [false, true] {
                        let root = State { admitted, is_paused, ..graph };
                        let ready = root.positions(|task| task == OpenTask::Waiting { after: 0 });
                        self.visit_with_kinds(&root, Step::Begin, ready)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn expand(&mut self, state: &State) -> Result<(), String> {
        for (at, task) in state.tasks().iter().enumerate() {
            if let OpenTask::Running { .. } = task {
                self.end_stage(state, at)?;
            }
        }
        let delayed = state.positions(|task| matches!(task, OpenTask::Delayed { .. }));
        for woken in subsets(delayed).filter(|woken| *woken != 0) {
            self.visit_with_kinds(state, Step::Tick { woken }, woken)?;
        }
        self.change_run(state)?;
        self.add_tasks(state)
    }

    /// Takes the steps in which a stage ends.
    fn end_stage(&mut self, state: &State, at: usize) -> Result<(), String> {
        let freed = state.positions(|task| task == OpenTask::Waiting { after: 1 << at });
        self.visit_with_kinds(state, Step::Done(at), freed)?;
        for kind in 0..self.kinds(state) {
            self.visit(state, Step::Next(at, kind))?;
        }
        let keep_going = Step::Failed(at, OnFailure::KeepGoing);
        let stop = Step::Failed(at, OnFailure::StopAtFirst);
        [keep_going, stop, Step::TooLarge(at), Step::Retry(at)]
            .into_iter()
            .try_for_each(|step| self.visit(state, step))
    }

    /// Takes the steps that pause, resume or stop the run or change the number of workers.
    fn change_run(&mut self, state: &State) -> Result<(), String> {
        if state.is_stopped {
            return Ok(());
        }
        self.visit(state, if state.is_paused { Step::Resume } else { Step::Pause })?;
        self.visit(state, Step::Stop)?;
        let mut others = (0..=WORKERS).filter(|units| *units != state.admitted);
        others.try_for_each(|units| self.visit(state, Step::Admit(units)))
    }

    /// Takes the steps that add a task: of any kind, at any rank, after and before any tasks.
    fn add_tasks(&mut self, state: &State) -> Result<(), String> {
        let waiting = state.positions(|task| matches!(task, OpenTask::Waiting { .. }));
        for before in subsets(waiting).filter(|before| *before != 0) {
            self.visit(state, Step::AddAfterFailed { before })?;
        }
        if state.len == self.setting.tasks {
            return Ok(());
        }
        let all = (1 << state.len) - 1;
        for after in subsets(all).filter(|after| is_reduced(state, *after)) {
            let is_free =
                |later: usize| bits_of(after).all(|before| before != later && !depends(state, before, later));
            let free = bits_of(waiting).filter(|later| is_free(*later)).fold(0, |bits, at| bits | 1 << at);
            let kinds = if after == 0 { self.kinds(state) } else { 1 };
            for before in subsets(free) {
                for position in 0..=state.len {
                    for kind in 0..kinds {
                        self.visit(state, Step::Add { position, kind, after, before })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the number of kinds that tasks may choose.
    fn kinds(&self, state: &State) -> u8 {
        if state.is_stopped { 1 } else { self.setting.kinds }
    }

    /// Takes a step for each choice of needs of the tasks that become ready.
    fn visit_with_kinds(&mut self, state: &State, step: Step, ready: u8) -> Result<(), String> {
        let max = self.kinds(state) - 1;
        let mut kinds = ChosenKinds::default();
        loop {
            // A stage has the same needs when it is retried.
            let is_possible = bits_of(ready).all(|at| match state.tasks[at] {
                OpenTask::Delayed { has_slot } => {
                    state.is_stopped || KINDS[usize::from(kinds[at])].has_slot == has_slot
                }
                _ => true,
            });
            if is_possible {
                self.visit_with(state, step, &kinds)?;
            }
            let Some(at) = bits_of(ready).find(|at| kinds[*at] < max) else { return Ok(()) };
            bits_of(ready).filter(|other| *other < at).for_each(|other| kinds[other] = 0);
            kinds[at] += 1;
        }
    }

    fn visit(&mut self, state: &State, step: Step) -> Result<(), String> {
        self.visit_with(state, step, &ChosenKinds::default())
    }

    fn visit_with(&mut self, state: &State, step: Step, kinds: &ChosenKinds) -> Result<(), String> {
        self.figures.steps += 1;
        let next = self.machine.step(state, step, kinds).map_err(|problem| {
            format!("{problem}\n{:?}\n{state:?}\n{step:?} with needs {kinds:?}", self.setting)
        })?;
        let number = self.numbering.number(&next);
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.figures.states += 1;
            self.open.push(number);
        }
        Ok(())
    }
}

/// Returns all subsets of a bit set.
fn subsets(all: u8) -> impl Iterator<Item = u8> {
    let mut next = Some(0_u8);
    std::iter::from_fn(move || {
        let subset = next?;
        let following = (subset | !all).wrapping_add(1) & all;
        next = (following != 0).then_some(following);
        Some(subset)
    })
}

/// Returns true if no task of a set depends on another one of it.
fn is_reduced(state: &State, set: u8) -> bool {
    bits_of(set).all(|at| bits_of(set).all(|other| at == other || !depends(state, at, other)))
}

/// Returns all acyclic graphs with a number of tasks, without dependencies that follow from others.
pub(super) fn graphs(tasks: usize) -> Vec<State> {
    let pairs: Vec<(usize, usize)> = (0..tasks)
        .flat_map(|at| (0..tasks).filter(move |other| *other != at).map(move |other| (at, other)))
        .collect();
    (0..1_u32 << pairs.len()).filter_map(|bits| graph(tasks, &pairs, bits)).collect()
}

fn graph(tasks: usize, pairs: &[(usize, usize)], bits: u32) -> Option<State> {
    let mut after = [0_u8; super::state::TASKS_MAX];
    for (number, (at, other)) in pairs.iter().enumerate() {
        after[*at] |= ((bits >> number & 1) as u8) << other;
    }
    let mut left = (1_u16 << tasks) as u8 - 1;
    while left != 0 {
        let free = bits_of(left).find(|at| after[*at] & left == 0)?;
        left &= !(1 << free);
    }
    let task = |at: usize| (after[at], OpenTask::Waiting { after: 0 });
    let state = canonical(0..tasks, |at| at, task, State::EMPTY);
    let is_reduced = |at: usize| state.tasks[at] == OpenTask::Waiting { after: after[at] };
    (0..tasks).all(is_reduced).then_some(state)
}
