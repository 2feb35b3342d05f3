//! A graph of named tasks and their dependencies.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use daggy::{Dag, NodeIndex};

use crate::Error;

/// Maximum number of steps of the search for a shortest cycle.
const CYCLE_STEPS_MAX: usize = 10_000_000;

/// The index of a task in its graph. Indices are consecutive, from 0, in order of addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u32);

impl TaskId {
    /// Returns the id of the task with the given index.
    ///
    /// # Panics
    /// If the index is 2³² or more.
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("a graph has fewer than 2³² tasks"))
    }

    /// Returns the index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Collects tasks and dependencies in any order. [`build`](GraphBuilder::build) checks them all at
/// once.
///
/// Checking once is linear. Checking for cycles after each added edge would be quadratic.
#[derive(Debug)]
pub struct GraphBuilder<T> {
    tasks: Vec<(String, T)>,
    dependencies: Vec<(String, String)>,
}

impl<T> Default for GraphBuilder<T> {
    fn default() -> Self {
        Self { tasks: Vec::new(), dependencies: Vec::new() }
    }
}

impl<T> GraphBuilder<T> {
    /// Creates an empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task with a payload.
    pub fn task(&mut self, id: impl Into<String>, payload: T) -> &mut Self {
        self.tasks.push((id.into(), payload));
        self
    }

    /// Makes `id` depend on `dependency`. Either task may be added later. Repetitions have no
    /// effect.
    pub fn depends_on(&mut self, id: impl Into<String>, dependency: impl Into<String>) -> &mut Self {
        self.dependencies.push((id.into(), dependency.into()));
        self
    }

    /// Checks the graph and freezes it, in O(tasks + dependencies).
    ///
    /// # Errors
    /// [`Error::DuplicateTask`], [`Error::UnknownDependency`], or [`Error::Cycle`] with a shortest
    /// cycle. In a graph with thousands of tasks, the cycle may not be the shortest.
    pub fn build(self) -> Result<Graph<T>, Error> {
        let mut index = HashMap::with_capacity(self.tasks.len());
        let mut dag = Dag::with_capacity(self.tasks.len(), self.dependencies.len());
        for (id, payload) in self.tasks {
            let node = dag.add_node(Node { id: id.clone(), payload });
            if index.insert(id.clone(), node).is_some() {
                return Err(Error::DuplicateTask { id });
            }
        }
        let mut edges = resolve(&index, self.dependencies)?;
        edges.sort_unstable();
        edges.dedup();
        let (after, before) = (
            AdjacencyRows::new(index.len(), &edges, |edge| edge),
            AdjacencyRows::new(index.len(), &edges, |(a, b)| (b, a)),
        );
        let order = topological_order(&after, &before);
        if order.len() < index.len() {
            let path = shortest_cycle(&before, &order);
            let name = |at: &usize| dag[NodeIndex::new(*at)].id.clone();
            return Err(Error::Cycle { path: path.iter().map(name).collect() });
        }
        // daggy checks for a cycle if the target of a new edge has dependants, with a recursion
        // that overflows the stack in a graph with a long path. In this order no target has any.
        let ordered = order.iter().flat_map(|&task| {
            before.of(task).iter().map(move |&dependency| (node(dependency), node(task), ()))
        });
        dag.add_edges(ordered).expect("edges in topological order form no cycle");
        Ok(Graph { dag, index, after, before })
    }
}

/// The neighbours of all tasks, concatenated (compressed sparse rows).
#[derive(Debug)]
struct AdjacencyRows {
    /// Start of each task's neighbours, and the end of the last ones.
    starts: Vec<u32>,
    neighbours: Vec<TaskId>,
}

impl AdjacencyRows {
    /// Builds the rows in order of addition: sorted edges have it in one direction, and the
    /// counting sort preserves it in the other.
    fn new(
        tasks: usize,
        edges: &[(NodeIndex, NodeIndex)],
        oriented: impl Fn((NodeIndex, NodeIndex)) -> (NodeIndex, NodeIndex),
    ) -> Self {
        let mut starts = vec![0; tasks + 1];
        for &edge in edges {
            starts[oriented(edge).0.index() + 1] += 1;
        }
        for task in 0..tasks {
            starts[task + 1] += starts[task];
        }
        let mut next = starts.clone();
        let mut neighbours = vec![TaskId(0); edges.len()];
        for &edge in edges {
            let (from, to) = oriented(edge);
            let at = &mut next[from.index()];
            neighbours[*at as usize] = TaskId(to.index() as u32);
            *at += 1;
        }
        Self { starts, neighbours }
    }

    fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        (0..self.starts.len() - 1).map(TaskId::from_index)
    }

    fn of(&self, task: TaskId) -> &[TaskId] {
        &self.neighbours[self.starts[task.index()] as usize..self.starts[task.index() + 1] as usize]
    }
}

/// A checked, acyclic graph.
#[derive(Debug)]
pub struct Graph<T> {
    dag: Dag<Node<T>, ()>,
    index: HashMap<String, NodeIndex>,
    after: AdjacencyRows,
    before: AdjacencyRows,
}

#[derive(Debug)]
struct Node<T> {
    id: String,
    payload: T,
}

impl<T> Graph<T> {
    /// Returns the number of tasks.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Returns true if the graph has no tasks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all tasks in order of addition.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + use<T> {
        (0..self.len() as u32).map(TaskId)
    }

    /// Returns the task with the given name.
    pub fn find(&self, id: &str) -> Option<TaskId> {
        self.index.get(id).map(|node| TaskId(node.index() as u32))
    }

    /// Returns the name of a task.
    ///
    /// # Panics
    /// If the task belongs to another, larger graph.
    pub fn id(&self, task: TaskId) -> &str {
        &self.dag[node(task)].id
    }

    /// Returns the payload of a task.
    ///
    /// # Panics
    /// If the task belongs to another, larger graph.
    pub fn payload(&self, task: TaskId) -> &T {
        &self.dag[node(task)].payload
    }

    /// Returns the dependencies of a task in order of addition.
    ///
    /// # Panics
    /// If the task belongs to another, larger graph.
    pub fn dependencies(&self, task: TaskId) -> &[TaskId] {
        self.before.of(task)
    }

    /// Returns the tasks that depend on a task, in order of addition.
    ///
    /// # Panics
    /// If the task belongs to another, larger graph.
    pub fn dependants(&self, task: TaskId) -> &[TaskId] {
        self.after.of(task)
    }

    /// Returns the tasks in topological order, dependencies first. Ties are in order of addition.
    pub fn topological(&self) -> Vec<TaskId> {
        self.levels().into_iter().flatten().collect()
    }

    /// Returns the tasks by depth: tasks without dependencies, tasks that depend only on these, and
    /// so on.
    ///
    /// For display only. The executor has no such groups: a task starts when its dependencies are
    /// done.
    pub fn levels(&self) -> Vec<Vec<TaskId>> {
        let mut waiting: Vec<usize> = self.tasks().map(|task| self.dependencies(task).len()).collect();
        let mut level: Vec<TaskId> = self.tasks().filter(|task| waiting[task.index()] == 0).collect();
        let mut levels = Vec::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            for &dependant in level.iter().flat_map(|&task| self.dependants(task)) {
                waiting[dependant.index()] -= 1;
                if waiting[dependant.index()] == 0 {
                    next.push(dependant);
                }
            }
            next.sort_unstable();
            levels.push(std::mem::replace(&mut level, next));
        }
        levels
    }

    /// Returns the upward rank of each task: its own duration plus that of the longest chain of
    /// dependants after it. In O(tasks + dependencies). Sums saturate at [`Duration::MAX`].
    pub fn upward_ranks(&self, duration: impl Fn(TaskId) -> Duration) -> Vec<Duration> {
        let mut ranks = vec![Duration::ZERO; self.len()];
        for task in self.topological().into_iter().rev() {
            let behind = self.dependants(task).iter().map(|next| ranks[next.index()]).max();
            ranks[task.index()] = duration(task).saturating_add(behind.unwrap_or_default());
        }
        ranks
    }

    /// Returns the longest chain of tasks by duration, first task first, and its length, which is a
    /// lower bound of every schedule.
    pub fn critical_path(&self, duration: impl Fn(TaskId) -> Duration) -> (Vec<TaskId>, Duration) {
        let ranks = self.upward_ranks(duration);
        // The first of several maxima, for a deterministic result.
        let first = |best: Option<TaskId>, task: TaskId| match best {
            Some(best) if ranks[best.index()] >= ranks[task.index()] => Some(best),
            _ => Some(task),
        };
        let mut path = Vec::new();
        let mut at = self.tasks().fold(None, first);
        let length = at.map(|task| ranks[task.index()]).unwrap_or_default();
        while let Some(task) = at {
            path.push(task);
            at = self.dependants(task).iter().copied().fold(None, first);
        }
        (path, length)
    }

    /// Formats the graph as a [Mermaid](https://mermaid.js.org/syntax/flowchart.html) flow chart.
    pub fn to_mermaid(&self, label: impl Fn(TaskId) -> String) -> String {
        let mut text = String::from("flowchart LR\n");
        for task in self.tasks() {
            let label = label(task).replace('&', "&amp;").replace('"', "&quot;");
            let _ =
                writeln!(text, "    n{}[\"{}\"]", task.0, label.replace('<', "&lt;").replace('\n', "<br/>"));
        }
        for (from, to) in self.edges() {
            let _ = writeln!(text, "    n{from} --> n{to}");
        }
        text
    }

    /// Formats the graph in the [DOT](https://graphviz.org/doc/info/lang.html) language of
    /// Graphviz.
    pub fn to_dot(&self, label: impl Fn(TaskId) -> String) -> String {
        let mut text = String::from("digraph plan {\n    rankdir=LR;\n    node [shape=box];\n");
        for task in self.tasks() {
            let label = label(task).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(text, "    n{} [label=\"{label}\"];", task.0);
        }
        for (from, to) in self.edges() {
            let _ = writeln!(text, "    n{from} -> n{to};");
        }
        text + "}\n"
    }

    fn edges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let edges = |from: TaskId| self.after.of(from).iter().map(move |to| (from.index(), to.index()));
        self.after.tasks().flat_map(edges)
    }
}

fn node(task: TaskId) -> NodeIndex {
    NodeIndex::new(task.index())
}

fn resolve(
    index: &HashMap<String, NodeIndex>,
    dependencies: Vec<(String, String)>,
) -> Result<Vec<(NodeIndex, NodeIndex)>, Error> {
    let edge = |(id, dependency): (String, String)| match (index.get(&dependency), index.get(&id)) {
        (Some(&from), Some(&to)) => Ok((from, to)),
        (Some(_), None) => Err(Error::UnknownDependency { dependency: id, id: dependency }),
        _ => Err(Error::UnknownDependency { id, dependency }),
    };
    dependencies.into_iter().map(edge).collect()
}

/// Returns the tasks, each after its dependencies (Kahn, "Topological sorting of large networks",
/// 1962). Leaves out tasks that depend on a cycle.
fn topological_order(after: &AdjacencyRows, before: &AdjacencyRows) -> Vec<TaskId> {
    let mut waiting: Vec<usize> = before.tasks().map(|task| before.of(task).len()).collect();
    let mut order: Vec<TaskId> = before.tasks().filter(|task| waiting[task.index()] == 0).collect();
    let mut next = 0;
    while let Some(&task) = order.get(next) {
        next += 1;
        for dependant in after.of(task) {
            waiting[dependant.index()] -= 1;
            if waiting[dependant.index()] == 0 {
                order.push(*dependant);
            }
        }
    }
    order
}

/// Finds a shortest cycle, as a list in which each task depends on the next. `ordered` are the
/// tasks that depend on no cycle.
///
/// Runs a breadth-first search from every task, which is quadratic. In a large graph the search
/// stops after [`CYCLE_STEPS_MAX`] steps with the shortest cycle so far.
fn shortest_cycle(before: &AdjacencyRows, ordered: &[TaskId]) -> Vec<usize> {
    let mut is_ordered = vec![false; before.tasks().count()];
    ordered.iter().for_each(|task| is_ordered[task.index()] = true);
    // Each of the other tasks depends on one of them. Following these ends on a cycle.
    let is_unordered = |task: &TaskId| !is_ordered[task.index()];
    let mut on_cycle = before.tasks().find(is_unordered);
    for _ in before.tasks() {
        on_cycle = on_cycle.and_then(|task| before.of(task).iter().copied().find(is_unordered));
    }
    let mut shortest: Option<Vec<usize>> = None;
    let mut steps = CYCLE_STEPS_MAX;
    for start in before.tasks() {
        let found = cycle_through(start, before, &mut steps);
        if found.as_ref().is_some_and(|found| shortest.as_ref().is_none_or(|best| found.len() < best.len())) {
            shortest = found;
        }
        if steps == 0 {
            break;
        }
    }
    let any = || on_cycle.and_then(|task| cycle_through(task, before, &mut { usize::MAX }));
    shortest.or_else(any).expect("tasks without a topological order depend on a cycle")
}

/// Finds a shortest cycle through a task. Gives up after `steps` steps, from which it subtracts its
/// own.
fn cycle_through(start: TaskId, before: &AdjacencyRows, steps: &mut usize) -> Option<Vec<usize>> {
    let tasks = before.tasks().count();
    *steps = steps.saturating_sub(tasks);
    let mut came_from = vec![None; tasks];
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        *steps = steps.saturating_sub(before.of(at).len());
        if *steps == 0 {
            return None;
        }
        for &next in before.of(at) {
            if next == start {
                let mut path = vec![at.index()];
                while let Some(before) = came_from[*path.last().expect("the path starts with one element")] {
                    path.push(before);
                }
                path.reverse();
                return Some(path);
            }
            if came_from[next.index()].is_none() {
                came_from[next.index()] = Some(at.index());
                queue.push_back(next);
            }
        }
    }
    None
}
