//! Random graphs of up to 3,000 tasks in virtual time. None deadlocks, and no stage waits longer
//! than [`Limits::overtakes_max`] allows.
//!
//! A stage that was overtaken as often as allowed starts, at the latest, when all current holders
//! of its resources have ended, and stages of higher rank that started meanwhile. The simulation
//! computes this time for every such stage and compares it with the actual start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use greenwave_scheduler::{
    Action, Addition, DispatchEvent, Dispatcher, GraphBuilder, Limits, Needs, OnFailure, Resources, TaskId,
    TaskState,
};
use greenwave_testkit::random::Random;

/// Set to repeat the graph of a seed.
const SEED: &str = "GREENWAVE_SEED";
const POOLS: [(&str, u32); 3] = [("workers", 8), ("gpu", 2), ("memory", 100)];

/// Resources that a stage holds, as units of the pools and of the lock.
type Held = [u32; 4];

struct Simulation {
    rng: Random,
    dispatcher: Dispatcher,
    limits: Limits,
    needs: Vec<Held>,
    ranks: Vec<u64>,
    begun: Vec<bool>,
    stages_left: Vec<u32>,
    fails: Vec<bool>,
    /// Ends of running stages.
    running: BinaryHeap<Reverse<(u64, TaskId)>>,
    ends: BTreeMap<TaskId, u64>,
    /// Number of times that a ready stage was overtaken by one that took a resource it needs.
    passed: HashMap<TaskId, u32>,
    /// Latest permitted start of stages that were overtaken too often, in seconds.
    deadlines: HashMap<TaskId, u64>,
    now: u64,
    actions: Vec<Action>,
    longest: Longest,
}

/// Maxima over all graphs.
#[derive(Debug, Default, Clone, Copy)]
struct Longest {
    overtaken: u32,
    owed_seconds: u64,
}

fn held(rng: &mut Random) -> Held {
    match rng.below(10) {
        0 => [8, 0, 0, 0],
        1 => [2, 1, 10, 0],
        2 => [1, 2, 0, 0],
        3 => [1, 0, 60, 1],
        4 => [0, 0, 0, 1 << 30],
        5 => [3, 0, 0, 1],
        _ => [1, 0, 0, 0],
    }
}

fn needs(held: Held) -> Needs {
    let pools = POOLS.iter().zip(held);
    let needs = pools.fold(Needs::nothing(), |needs, ((name, _), units)| needs.of(*name, units));
    match held[3] {
        0 => needs,
        1 => needs.shared("lock"),
        _ => needs.exclusive("lock"),
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Random::new(seed);
        let size = [10, 100, 400, 3000][rng.below(4) as usize];
        let tasks = 1 + rng.below(size) as usize;
        let mut graph = GraphBuilder::new();
        for at in 0..tasks {
            graph.task(at.to_string(), ());
        }
        let edges = rng.below(3);
        for at in 1..tasks as u64 {
            for _ in 0..rng.below(edges + 1) {
                let before = at - 1 - rng.below(at.min(50));
                graph.depends_on(at.to_string(), before.to_string());
            }
        }
        let graph = graph.build().unwrap();
        let limits = Limits {
            resources: Resources::new(POOLS),
            tasks_max: [1, 2, 5, 20, usize::MAX][rng.below(5) as usize],
            overtakes_max: [0, 1, 16, 16, 100][rng.below(5) as usize],
            on_failure: OnFailure::KeepGoing,
        };
        let ranks: Vec<u64> = match rng.below(3) {
            0 => vec![0; tasks],
            1 => (0..tasks).map(|_| rng.below(10)).collect(),
            _ => graph.upward_ranks(|_| Duration::from_secs(1)).iter().map(Duration::as_secs).collect(),
        };
        let all: Vec<Held> = (0..tasks).map(|_| held(&mut rng)).collect();
        let dispatcher =
            Dispatcher::new(&graph, limits.clone(), &ranks, |task| needs(all[task.index()])).unwrap();
        Self {
            stages_left: (0..tasks).map(|_| [0, 0, 1, 5, 40][rng.below(5) as usize]).collect(),
            fails: (0..tasks).map(|_| rng.chance(2)).collect(),
            begun: vec![false; tasks],
            rng,
            dispatcher,
            limits,
            needs: all,
            ranks,
            running: BinaryHeap::new(),
            ends: BTreeMap::new(),
            passed: HashMap::new(),
            deadlines: HashMap::new(),
            now: 0,
            actions: Vec::new(),
            longest: Longest::default(),
        }
    }

    fn handle(&mut self, event: DispatchEvent<'_>) {
        let now = Duration::from_secs(self.now);
        self.dispatcher.handle(now, event, &mut self.actions).unwrap();
        self.apply_actions();
    }

    fn run(mut self) -> Longest {
        self.handle(DispatchEvent::Begin);
        loop {
            let wakes_at = self.dispatcher.wakes_at().map(|at| at.as_secs());
            let ends_at = self.running.peek().map(|Reverse((end, _))| *end);
            match (wakes_at, ends_at) {
                (Some(wakes), end) if end.is_none_or(|end| wakes <= end) => {
                    self.now = wakes;
                    self.handle(DispatchEvent::Tick);
                }
                (_, Some(end)) => {
                    self.now = end;
                    self.end_next();
                }
                _ => break,
            }
        }
        let stats = self.dispatcher.stats();
        assert!(self.dispatcher.is_finished(), "stuck: {stats:?}");
        assert_eq!(stats.finished(), stats.tasks, "{stats:?}");
        assert!(self.deadlines.is_empty());
        self.longest
    }

    fn end_next(&mut self) {
        let Some(Reverse((_, task))) = self.running.pop() else { return };
        self.ends.remove(&task);
        let at = task.index();
        match self.rng.below(200) {
            0 => self.handle(DispatchEvent::Admit("workers", 1 + (self.now % 8) as u32)),
            1 => self.handle(DispatchEvent::Admit("workers", 8)),
            2 if self.needs.len() < 3000 => self.add(),
            3 => self.handle(DispatchEvent::Pause),
            _ => {}
        }
        if self.rng.chance(3) {
            self.handle(DispatchEvent::Retry(task, Duration::from_secs(5)));
        } else if self.fails[at] {
            self.handle(DispatchEvent::Failed(task));
        } else if self.stages_left[at] > 0 {
            self.stages_left[at] -= 1;
            self.needs[at] = held(&mut self.rng);
            let next = needs(self.needs[at]);
            self.handle(DispatchEvent::Next(task, &next));
        } else {
            self.handle(DispatchEvent::Done(task));
        }
        self.handle(DispatchEvent::Resume);
    }

    fn add(&mut self) {
        let held = held(&mut self.rng);
        let rank = self.rng.below(10);
        let after = [TaskId::from_index(self.rng.below(self.needs.len() as u64) as usize)];
        let addition = Addition { id: "added", rank, needs: &needs(held), after: &after, before: &[] };
        let now = Duration::from_secs(self.now);
        self.needs.push(held);
        self.ranks.push(rank);
        self.begun.push(false);
        self.stages_left.push(1);
        self.fails.push(false);
        self.dispatcher.add(now, addition, &mut self.actions).unwrap();
        self.apply_actions();
    }

    fn is_above(&self, task: TaskId, other: TaskId) -> bool {
        let key = |task: TaskId| (self.ranks[task.index()], Reverse(task));
        key(task) > key(other)
    }

    fn meets(&self, task: TaskId, other: TaskId) -> bool {
        let (a, b) = (self.needs[task.index()], self.needs[other.index()]);
        a.iter().zip(b).any(|(a, b)| *a > 0 && b > 0)
    }

    /// Performs the dispatcher's decisions and compares them with the bound.
    fn apply_actions(&mut self) {
        let heads = self.heads();
        let start = |action: Action| match action {
            Action::Start(task) => Some(task),
            Action::Skip(..) => None,
        };
        let starts: Vec<TaskId> = std::mem::take(&mut self.actions).into_iter().filter_map(start).collect();
        self.count_passed(&heads, &starts);
        for task in starts {
            self.begun[task.index()] = true;
            let end = self.now + 1 + self.rng.below(20);
            self.running.push(Reverse((end, task)));
            self.ends.insert(task, end);
            if let Some(latest) = self.deadlines.remove(&task) {
                assert!(self.now <= latest, "{task:?} starts at {} but was due by {latest}", self.now);
            }
            // Stages of higher rank may go first.
            let mut deadlines = std::mem::take(&mut self.deadlines);
            for (_, latest) in deadlines.iter_mut().filter(|(deadlines, _)| self.is_above(task, **deadlines))
            {
                *latest = (*latest).max(end);
            }
            self.deadlines = deadlines;
        }
        self.find_owed();
        self.check_limits();
    }

    /// Returns the first of all ready stages with the same needs.
    fn heads(&self) -> HashMap<(Held, bool), TaskId> {
        let mut heads = HashMap::new();
        for at in 0..self.needs.len() {
            let task = TaskId::from_index(at);
            if matches!(self.dispatcher.state(task), TaskState::Ready(_)) {
                let head = heads.entry((self.needs[at], self.begun[at])).or_insert(task);
                if self.is_above(task, *head) {
                    *head = task;
                }
            }
        }
        heads
    }

    /// Counts overtaking independently of the dispatcher.
    fn count_passed(&mut self, heads: &HashMap<(Held, bool), TaskId>, starts: &[TaskId]) {
        self.passed.retain(|task, _| matches!(self.dispatcher.state(*task), TaskState::Ready(_)));
        let class = |task: TaskId| (self.needs[task.index()], self.begun[task.index()]);
        let not_begun = |task: &&TaskId| !self.begun[task.index()];
        let in_flight = self.dispatcher.stats().in_flight;
        for &head in heads.values() {
            let before =
                heads.values().filter(not_begun).filter(|other| self.is_above(**other, head)).count();
            // Tasks in progress do not overtake tasks that wait for a slot under `tasks_max`.
            let has_slot =
                self.begun[head.index()] || in_flight.saturating_add(before) < self.limits.tasks_max;
            let was_behind = starts.iter().any(|start| class(*start) == class(head));
            if !has_slot || was_behind {
                continue;
            }
            let takes = |start: &&TaskId| self.is_above(head, **start) && self.meets(**start, head);
            let count = starts.iter().filter(takes).count() as u32;
            let passed = self.passed.entry(head).or_default();
            *passed += count;
            assert!(*passed <= self.limits.overtakes_max, "{head:?} was overtaken {passed} times");
            self.longest.overtaken = self.longest.overtaken.max(*passed);
        }
    }

    /// Finds the stages that were overtaken as often as allowed, are first in their class, and have
    /// a slot.
    fn find_owed(&mut self) {
        let has_slots = self.dispatcher.stats().in_flight < self.limits.tasks_max;
        let heads = self.heads();
        for &task in heads.values() {
            let overtaken = self.dispatcher.overtaken(task);
            let is_owed = overtaken >= self.limits.overtakes_max;
            if is_owed && (has_slots || self.begun[task.index()]) && !self.deadlines.contains_key(&task) {
                let holders = self.ends.iter().filter(|(holder, _)| self.meets(**holder, task));
                let latest = holders.map(|(_, end)| *end).max().unwrap_or(self.now);
                self.longest.owed_seconds = self.longest.owed_seconds.max(latest - self.now);
                self.deadlines.insert(task, latest);
            }
        }
        // Without a slot, or behind another stage of its class, a stage has no claim.
        let begun = &self.begun;
        let mut deadlines = std::mem::take(&mut self.deadlines);
        deadlines
            .retain(|task, _| (has_slots || begun[task.index()]) && heads.values().any(|head| head == task));
        // Resources reserved for a stage of higher rank are not available to these.
        let all: Vec<(TaskId, u64)> = deadlines.iter().map(|(task, latest)| (*task, *latest)).collect();
        for (task, latest) in &mut deadlines {
            let above = all.iter().filter(|(other, _)| self.is_above(*other, *task));
            *latest = above.map(|(_, latest)| *latest).fold(*latest, u64::max);
        }
        self.deadlines = deadlines;
    }

    fn check_limits(&self) {
        let stats = self.dispatcher.stats();
        assert!(stats.in_flight <= self.limits.tasks_max);
        let mut used: Held = [0; 4];
        for task in self.ends.keys() {
            for (sum, units) in used.iter_mut().zip(self.needs[task.index()]) {
                *sum += units;
            }
        }
        let limits = [POOLS[0].1, POOLS[1].1, POOLS[2].1, 1 << 30];
        assert!(used.iter().zip(limits).all(|(used, limit)| *used <= limit), "{used:?}");
    }
}

#[test]
fn random_graphs_never_deadlock_and_respect_the_overtaking_bound() {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let graphs = std::env::var("GREENWAVE_GRAPHS").ok().and_then(|graphs| graphs.parse().ok());
    let first: u64 =
        given.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    let graphs: u64 = if given.is_some() { 1 } else { graphs.unwrap_or(20) };
    let mut longest = Longest::default();
    for seed in (0..graphs).map(|number| first.wrapping_add(number)) {
        println!("to repeat: {SEED}={seed}");
        let other = Simulation::new(seed).run();
        longest.overtaken = longest.overtaken.max(other.overtaken);
        longest.owed_seconds = longest.owed_seconds.max(other.owed_seconds);
    }
    println!("{graphs} graphs: {longest:?}");
}
