//! Graphs of tasks with durations, and what other policies make of them. Knows nothing of how ours is measured.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use greenwave_scheduler::{
    Action, DispatchEvent, Dispatcher, Durations, Graph, GraphBuilder, Limits, Needs, Resources, TaskId,
};

/// Random numbers, the same for the same seed (xorshift64*).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins anew.
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Kinds of graphs.
pub const FAMILIES: [&str; 4] = ["layered random", "fork and join", "feature chains", "like a build"];
/// Kinds of durations.
pub const DURATIONS: [&str; 3] = ["lognormal", "bimodal", "uniform"];

/// A graph with how long each task takes.
#[derive(Debug)]
pub struct Case {
    /// The graph.
    pub graph: Graph<()>,
    /// By task.
    pub took: Vec<Duration>,
}

impl Case {
    /// About so many tasks.
    ///
    /// # Panics
    /// If there is no such family, or no such kind of durations.
    pub fn new(family: &str, durations: &str, tasks: usize, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut graph = GraphBuilder::new();
        for task in 0..tasks {
            graph.task(task.to_string(), ());
        }
        for task in 1..tasks {
            for before in before(family, task, tasks, &mut chance) {
                graph.depends_on(task.to_string(), before.to_string());
            }
        }
        let seconds = |chance: &mut Chance| match durations {
            "lognormal" => chance.normal().exp(),
            "bimodal" if chance.uniform() < 0.1 => 10.0 + chance.uniform() * 10.0,
            "bimodal" => 0.5 + chance.uniform(),
            "uniform" => 0.1 + chance.uniform() * 3.0,
            other => panic!("there are no durations {other:?}"),
        };
        let took = (0..tasks).map(|_| Duration::from_secs_f64(seconds(&mut chance))).collect();
        Self { graph: graph.build().expect("edges lead forward"), took }
    }

    /// The longest path, or all work over the workers.
    pub fn lower_bound(&self, workers: u32) -> Duration {
        let work: Duration = self.took.iter().sum();
        self.graph.critical_path(|task| self.took[task.index()]).1.max(work / workers)
    }

    /// Estimates as they are after a few runs, in each of which everything took between half and twice as long.
    pub fn learned(&self, runs: usize, seed: u64) -> Vec<Duration> {
        let mut chance = Chance::new(seed);
        let mut durations = Durations::default();
        for _ in 0..runs {
            for (task, took) in self.took.iter().enumerate() {
                durations
                    .observe(&format!("task:{task}"), took.mul_f64((chance.uniform() * 2.0 - 1.0).exp2()));
            }
        }
        (0..self.took.len()).map(|task| durations.estimate(&format!("task:{task}"))).collect()
    }

    /// How long the dispatcher's schedule takes under ranks, in virtual time.
    ///
    /// # Panics
    /// If it does not come to an end.
    pub fn makespan(&self, ranks: &[u64], workers: u32) -> Duration {
        let limits = Limits { resources: Resources::new([("workers", workers)]), ..Limits::default() };
        let one = Needs::nothing().of("workers", 1);
        let dispatcher = Dispatcher::new(&self.graph, limits, ranks, |_| one.clone());
        let mut dispatcher = dispatcher.expect("a task needs one worker");
        let (mut actions, mut running, mut now) = (Vec::new(), BinaryHeap::new(), Duration::ZERO);
        dispatcher.handle(now, DispatchEvent::Begin, &mut actions).expect("needs do not change");
        loop {
            for action in actions.drain(..) {
                let Action::Start(task) = action else { panic!("nothing fails") };
                running.push(Reverse((now + self.took[task.index()], task)));
            }
            let Some(Reverse((end, task))) = running.pop() else { break };
            now = end;
            dispatcher.handle(now, DispatchEvent::Done(task), &mut actions).expect("needs do not change");
        }
        assert_eq!(dispatcher.stats().done, self.graph.len());
        now
    }

    /// How long it takes with a barrier behind each level.
    pub fn by_levels(&self, workers: u32) -> Duration {
        let level = |tasks: &Vec<TaskId>| {
            let mut free: BinaryHeap<Reverse<Duration>> =
                (0..workers).map(|_| Reverse(Duration::ZERO)).collect();
            for task in tasks {
                let mut worker = free.peek_mut().expect("there is a worker");
                worker.0 += self.took[task.index()];
            }
            free.into_iter().map(|Reverse(end)| end).max().unwrap_or_default()
        };
        self.graph.levels().iter().map(level).sum()
    }
}

/// Ranks by the longest path, in durations that are known or guessed.
pub fn ranks(graph: &Graph<()>, took: &[Duration]) -> Vec<u64> {
    let ranks = graph.upward_ranks(|task| took[task.index()]);
    ranks.into_iter().map(|rank| u64::try_from(rank.as_nanos()).unwrap_or(u64::MAX)).collect()
}

/// What a task waits for.
fn before(family: &str, task: usize, tasks: usize, chance: &mut Chance) -> Vec<usize> {
    match family {
        // Layers of twenty, each task with one to three of the layer before.
        "layered random" => {
            let layer = task / 20;
            let count = if layer == 0 { 0 } else { 1 + chance.below(3) };
            (0..count).map(|_| (layer - 1) * 20 + chance.below(20)).collect()
        }
        // Forty in parallel, one that joins them, and again.
        "fork and join" => match task % 41 {
            0 => (task.saturating_sub(40)..task).collect(),
            _ => vec![task - task % 41],
        },
        // Features of one to twenty steps, in a row each; every fifth begins behind another.
        "feature chains" => match task % 12 {
            0 if task.is_multiple_of(5) && task > 12 => vec![chance.below(task)],
            0 => vec![],
            _ if chance.uniform() < 0.08 => vec![],
            _ => vec![task - 1],
        },
        // Many that wait for little, and late ones that wait for many.
        "like a build" => {
            let late = task * 20 > tasks * 19;
            let count = if late { 30.min(task) } else { chance.below(3).min(task) };
            (0..count).map(|_| chance.below(task)).collect()
        }
        other => panic!("there is no family {other:?}"),
    }
}
