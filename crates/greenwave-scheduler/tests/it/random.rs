//! Random graphs of up to 3,000 tasks in virtual time: none is stuck, and nobody waits longer than
//! [`Limits::overtakes_max`] allows.
//!
//! Once a stage has been overtaken as often as allowed, it starts at the latest when the stages that
//! hold something of what it needs have ended, and those of higher rank that started meanwhile. The
//! simulation computes that time for every such stage and compares it with when it started.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use greenwave_scheduler::{
    Action, Addition, DispatchEvent, Dispatcher, GraphBuilder, Limits, Needs, OnFailure, Resources, TaskId,
    TaskState,
};

/// Repeats one graph.
const SEED: &str = "GREENWAVE_SEED";
const POOLS: [(&str, u32); 3] = [("workers", 8), ("gpu", 2), ("memory", 100)];

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a stage holds, as units of the pools and of the lock.
type Held = [u32; 4];

struct Simulation {
    chance: Chance,
    dispatcher: Dispatcher,
    limits: Limits,
    needs: Vec<Held>,
    ranks: Vec<u64>,
    begun: Vec<bool>,
    stages_left: Vec<u32>,
    fails: Vec<bool>,
    /// What ends when.
    running: BinaryHeap<Reverse<(u64, TaskId)>>,
    ends: BTreeMap<TaskId, u64>,
    /// How often a stage that is ready was overtaken by one that took something of what it needs.
    passed: HashMap<TaskId, u32>,
    /// By when a stage that was overtaken too often has to start, in seconds.
    owed: HashMap<TaskId, u64>,
    now: u64,
    actions: Vec<Action>,
    longest: Longest,
}

/// The greatest of all graphs.
#[derive(Debug, Default, Clone, Copy)]
struct Longest {
    overtaken: u32,
    owed_seconds: u64,
}

fn held(chance: &mut Chance) -> Held {
    match chance.below(10) {
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
        let mut chance = Chance(seed);
        let size = [10, 100, 400, 3000][chance.below(4) as usize];
        let tasks = 1 + chance.below(size) as usize;
        let mut graph = GraphBuilder::new();
        for at in 0..tasks {
            graph.task(at.to_string(), ());
        }
        let edges = chance.below(3);
        for at in 1..tasks as u64 {
            for _ in 0..chance.below(edges + 1) {
                let before = at - 1 - chance.below(at.min(50));
                graph.depends_on(at.to_string(), before.to_string());
            }
        }
        let graph = graph.build().unwrap();
        let limits = Limits {
            resources: Resources::new(POOLS),
            tasks_max: [1, 2, 5, 20, usize::MAX][chance.below(5) as usize],
            overtakes_max: [0, 1, 16, 16, 100][chance.below(5) as usize],
            on_failure: OnFailure::KeepGoing,
        };
        let ranks: Vec<u64> = match chance.below(3) {
            0 => vec![0; tasks],
            1 => (0..tasks).map(|_| chance.below(10)).collect(),
            _ => graph.upward_ranks(|_| Duration::from_secs(1)).iter().map(Duration::as_secs).collect(),
        };
        let all: Vec<Held> = (0..tasks).map(|_| held(&mut chance)).collect();
        let dispatcher =
            Dispatcher::new(&graph, limits.clone(), &ranks, |task| needs(all[task.index()])).unwrap();
        Self {
            stages_left: (0..tasks).map(|_| [0, 0, 1, 5, 40][chance.below(5) as usize]).collect(),
            fails: (0..tasks).map(|_| chance.is(2)).collect(),
            begun: vec![false; tasks],
            chance,
            dispatcher,
            limits,
            needs: all,
            ranks,
            running: BinaryHeap::new(),
            ends: BTreeMap::new(),
            passed: HashMap::new(),
            owed: HashMap::new(),
            now: 0,
            actions: Vec::new(),
            longest: Longest::default(),
        }
    }

    fn handle(&mut self, event: DispatchEvent<'_>) {
        let now = Duration::from_secs(self.now);
        self.dispatcher.handle(now, event, &mut self.actions).unwrap();
        self.take_note();
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
        assert!(self.owed.is_empty());
        self.longest
    }

    fn end_next(&mut self) {
        let Some(Reverse((_, task))) = self.running.pop() else { return };
        self.ends.remove(&task);
        let at = task.index();
        match self.chance.below(200) {
            0 => self.handle(DispatchEvent::Admit("workers", 1 + (self.now % 8) as u32)),
            1 => self.handle(DispatchEvent::Admit("workers", 8)),
            2 if self.needs.len() < 3000 => self.add(),
            3 => self.handle(DispatchEvent::Pause),
            _ => {}
        }
        if self.chance.is(3) {
            self.handle(DispatchEvent::Retry(task, Duration::from_secs(5)));
        } else if self.fails[at] {
            self.handle(DispatchEvent::Failed(task));
        } else if self.stages_left[at] > 0 {
            self.stages_left[at] -= 1;
            self.needs[at] = held(&mut self.chance);
            let next = needs(self.needs[at]);
            self.handle(DispatchEvent::Next(task, &next));
        } else {
            self.handle(DispatchEvent::Done(task));
        }
        self.handle(DispatchEvent::Resume);
    }

    fn add(&mut self) {
        let held = held(&mut self.chance);
        let rank = self.chance.below(10);
        let after = [TaskId::from_index(self.chance.below(self.needs.len() as u64) as usize)];
        let addition = Addition { id: "added", rank, needs: &needs(held), after: &after, before: &[] };
        let now = Duration::from_secs(self.now);
        self.needs.push(held);
        self.ranks.push(rank);
        self.begun.push(false);
        self.stages_left.push(1);
        self.fails.push(false);
        self.dispatcher.add(now, addition, &mut self.actions).unwrap();
        self.take_note();
    }

    fn is_above(&self, task: TaskId, other: TaskId) -> bool {
        let key = |task: TaskId| (self.ranks[task.index()], Reverse(task));
        key(task) > key(other)
    }

    fn meets(&self, task: TaskId, other: TaskId) -> bool {
        let (a, b) = (self.needs[task.index()], self.needs[other.index()]);
        a.iter().zip(b).any(|(a, b)| *a > 0 && b > 0)
    }

    /// Performs what was decided, and compares it with the bound.
    fn take_note(&mut self) {
        let heads = self.heads();
        let start = |action: Action| match action {
            Action::Start(task) => Some(task),
            Action::Skip(..) => None,
        };
        let starts: Vec<TaskId> = std::mem::take(&mut self.actions).into_iter().filter_map(start).collect();
        self.count_passed(&heads, &starts);
        for task in starts {
            self.begun[task.index()] = true;
            let end = self.now + 1 + self.chance.below(20);
            self.running.push(Reverse((end, task)));
            self.ends.insert(task, end);
            if let Some(latest) = self.owed.remove(&task) {
                assert!(self.now <= latest, "{task:?} starts at {} and was owed by {latest}", self.now);
            }
            // Those of higher rank may go before.
            let mut owed = std::mem::take(&mut self.owed);
            for (_, latest) in owed.iter_mut().filter(|(owed, _)| self.is_above(task, **owed)) {
                *latest = (*latest).max(end);
            }
            self.owed = owed;
        }
        self.find_owed();
        self.check_limits();
    }

    /// The first of all ready stages that need the same.
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

    /// Counts overtaking by itself, whatever the dispatcher says of it.
    fn count_passed(&mut self, heads: &HashMap<(Held, bool), TaskId>, starts: &[TaskId]) {
        self.passed.retain(|task, _| matches!(self.dispatcher.state(*task), TaskState::Ready(_)));
        let class = |task: TaskId| (self.needs[task.index()], self.begun[task.index()]);
        let not_begun = |task: &&TaskId| !self.begun[task.index()];
        let in_flight = self.dispatcher.stats().in_flight;
        for &head in heads.values() {
            let before =
                heads.values().filter(not_begun).filter(|other| self.is_above(**other, head)).count();
            // Tasks that have a place under `tasks_max` do not overtake those that wait for one.
            let has_place =
                self.begun[head.index()] || in_flight.saturating_add(before) < self.limits.tasks_max;
            let was_behind = starts.iter().any(|start| class(*start) == class(head));
            if !has_place || was_behind {
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

    /// Which stages were overtaken as often as is allowed, are the first of their class, and have a place.
    fn find_owed(&mut self) {
        let has_places = self.dispatcher.stats().in_flight < self.limits.tasks_max;
        let heads = self.heads();
        for &task in heads.values() {
            let overtaken = self.dispatcher.overtaken(task);
            let is_owed = overtaken >= self.limits.overtakes_max;
            if is_owed && (has_places || self.begun[task.index()]) && !self.owed.contains_key(&task) {
                let holders = self.ends.iter().filter(|(holder, _)| self.meets(**holder, task));
                let latest = holders.map(|(_, end)| *end).max().unwrap_or(self.now);
                self.longest.owed_seconds = self.longest.owed_seconds.max(latest - self.now);
                self.owed.insert(task, latest);
            }
        }
        // Without a place, or behind another of its class, it is not owed any more.
        let begun = &self.begun;
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|task, _| (has_places || begun[task.index()]) && heads.values().any(|head| head == task));
        // What is left to one of higher rank is not left to them.
        let all: Vec<(TaskId, u64)> = owed.iter().map(|(task, latest)| (*task, *latest)).collect();
        for (task, latest) in &mut owed {
            let above = all.iter().filter(|(other, _)| self.is_above(*other, *task));
            *latest = above.map(|(_, latest)| *latest).fold(*latest, u64::max);
        }
        self.owed = owed;
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
fn no_random_graph_is_stuck_and_nobody_waits_longer_than_the_bound() {
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
