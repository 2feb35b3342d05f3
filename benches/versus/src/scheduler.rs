//! Random graphs of tasks with durations, and their schedules under several policies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use greenwave_scheduler::{
    Action, DispatchEvent, Dispatcher, Durations, Graph, GraphBuilder, Limits, Needs, Resources, TaskId,
};

/// A random number generator that its seed determines (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number from 0 up to, but not including, 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Names of the families of graphs.
pub const FAMILIES: [&str; 4] = ["layered random", "fork and join", "feature chains", "like a build"];
/// Names of the distributions of durations.
pub const DURATIONS: [&str; 3] = ["lognormal", "bimodal", "uniform"];

/// A graph with the duration of each task.
#[derive(Debug)]
pub struct Case {
    /// Tasks and their dependencies.
    pub graph: Graph<()>,
    /// Duration of each task, by index.
    pub durations: Vec<Duration>,
}

impl Case {
    /// Creates a random graph with the given number of tasks.
    ///
    /// # Panics
    /// If the family or the distribution does not exist.
    pub fn new(family: &str, distribution: &str, tasks: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut graph = GraphBuilder::new();
        for task in 0..tasks {
            graph.task(task.to_string(), ());
        }
        for task in 1..tasks {
            for dependency in dependencies(family, task, tasks, &mut random) {
                graph.depends_on(task.to_string(), dependency.to_string());
            }
        }
        let seconds = |random: &mut Random| match distribution {
            "lognormal" => random.normal().exp(),
            "bimodal" if random.uniform() < 0.1 => 10.0 + random.uniform() * 10.0,
            "bimodal" => 0.5 + random.uniform(),
            "uniform" => 0.1 + random.uniform() * 3.0,
            other => panic!("invalid distribution {other:?}"),
        };
        let durations = (0..tasks).map(|_| Duration::from_secs_f64(seconds(&mut random))).collect();
        Self { graph: graph.build().expect("edges lead forward"), durations }
    }

    /// Returns a lower bound of the makespan: the longest path, or the total work divided by the
    /// number of workers.
    pub fn lower_bound(&self, workers: u32) -> Duration {
        let work: Duration = self.durations.iter().sum();
        self.graph.critical_path(|task| self.durations[task.index()]).1.max(work / workers)
    }

    /// Returns the estimated durations after a number of runs, in which each task took between half
    /// and twice its duration.
    pub fn learned(&self, runs: usize, seed: u64) -> Vec<Duration> {
        let mut random = Random::new(seed);
        let mut estimates = Durations::default();
        for _ in 0..runs {
            for (task, duration) in self.durations.iter().enumerate() {
                estimates.observe(
                    &format!("task:{task}"),
                    duration.mul_f64((random.uniform() * 2.0 - 1.0).exp2()),
                );
            }
        }
        (0..self.durations.len()).map(|task| estimates.estimate(&format!("task:{task}"))).collect()
    }

    /// Returns the makespan of the dispatcher's schedule with the given ranks, in virtual time.
    ///
    /// # Panics
    /// If the dispatcher stops before all tasks are done.
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
                running.push(Reverse((now + self.durations[task.index()], task)));
            }
            let Some(Reverse((end, task))) = running.pop() else { break };
            now = end;
            dispatcher.handle(now, DispatchEvent::Done(task), &mut actions).expect("needs do not change");
        }
        assert_eq!(dispatcher.stats().done, self.graph.len());
        now
    }

    /// Returns the makespan with a barrier after each level of the graph.
    pub fn by_levels(&self, workers: u32) -> Duration {
        let level = |tasks: &Vec<TaskId>| {
            let mut free: BinaryHeap<Reverse<Duration>> =
                (0..workers).map(|_| Reverse(Duration::ZERO)).collect();
            for task in tasks {
                let mut worker = free.peek_mut().expect("there is at least one worker");
                worker.0 += self.durations[task.index()];
            }
            free.into_iter().map(|Reverse(end)| end).max().unwrap_or_default()
        };
        self.graph.levels().iter().map(level).sum()
    }
}

/// Returns ranks by the longest path, from exact or estimated durations.
pub fn ranks(graph: &Graph<()>, durations: &[Duration]) -> Vec<u64> {
    let ranks = graph.upward_ranks(|task| durations[task.index()]);
    ranks.into_iter().map(|rank| u64::try_from(rank.as_nanos()).unwrap_or(u64::MAX)).collect()
}

/// Returns the dependencies of a task.
fn dependencies(family: &str, task: usize, tasks: usize, random: &mut Random) -> Vec<usize> {
    match family {
        // Layers of twenty tasks. Each task depends on one to three tasks of the previous layer.
        "layered random" => {
            let layer = task / 20;
            let count = if layer == 0 { 0 } else { 1 + random.below(3) };
            (0..count).map(|_| (layer - 1) * 20 + random.below(20)).collect()
        }
        // Forty parallel tasks, then one that joins them, repeatedly.
        "fork and join" => match task % 41 {
            0 => (task.saturating_sub(40)..task).collect(),
            _ => vec![task - task % 41],
        },
        // Chains of up to twelve tasks. Some chains depend on a task of another.
        "feature chains" => match task % 12 {
            0 if task.is_multiple_of(5) && task > 12 => vec![random.below(task)],
            0 => vec![],
            _ if random.uniform() < 0.08 => vec![],
            _ => vec![task - 1],
        },
        // Many tasks with few dependencies, and late ones with many.
        "like a build" => {
            let late = task * 20 > tasks * 19;
            let count = if late { 30.min(task) } else { random.below(3).min(task) };
            (0..count).map(|_| random.below(task)).collect()
        }
        other => panic!("invalid family {other:?}"),
    }
}
