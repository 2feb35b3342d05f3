//! Graphs: errors and their messages, orders, paths, diagrams.

use std::time::Duration;

use greenwave_scheduler::{Error, Graph, GraphBuilder, TaskId};
use insta::assert_snapshot;
use proptest::prelude::*;

fn build(tasks: &str, edges: &[(&str, &str)]) -> Result<Graph<()>, Error> {
    let mut graph = GraphBuilder::new();
    for id in tasks.split_whitespace() {
        graph.task(id, ());
    }
    for (id, dependency) in edges {
        graph.depends_on(*id, *dependency);
    }
    graph.build()
}

fn names(graph: &Graph<()>, tasks: &[TaskId]) -> String {
    tasks.iter().map(|&task| graph.id(task)).collect::<Vec<_>>().join(" ")
}

#[test]
fn invalid_graphs_are_refused_with_a_reason() {
    let message = |tasks, edges: &[_]| build(tasks, edges).map(|_| ()).unwrap_err().to_string();
    assert_snapshot!(message("a b a", &[]), @"duplicate task `a`");
    assert_snapshot!(message("a b", &[("a", "c")]), @"unknown dependency `c` of task `a`");
    assert_snapshot!(message("a", &[("a", "a")]), @"cyclic dependency of tasks: a -> a");
    // There is a longer cycle too. The shortest one is reported.
    let edges = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("c", "b"), ("e", "a")];
    assert_snapshot!(message("a b c d e", &edges), @"cyclic dependency of tasks: b -> c -> b");
}

/// Returns a chain of tasks: each depends on the next.
fn chain(tasks: usize) -> GraphBuilder<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
        if task > 0 {
            graph.depends_on((task - 1).to_string(), task.to_string());
        }
    }
    graph
}

#[test]
fn a_long_chain_of_tasks_is_built_without_recursion() {
    let graph = chain(100_000).build().unwrap();
    assert_eq!(graph.levels().len(), 100_000);
    assert_eq!(graph.to_dot(|_| String::new()).lines().count(), 3 + 100_000 + 99_999 + 1);
}

#[test]
fn a_cycle_in_a_large_graph_is_found_without_a_search_from_every_task() {
    let mut graph = chain(100_000);
    graph.depends_on("99999", "0");
    // The cycle of all tasks is the only one.
    match graph.build().unwrap_err() {
        Error::Cycle { path } => assert_eq!(path.len(), 100_000),
        other => panic!("{other}"),
    }
}

#[test]
fn levels_and_critical_path() {
    let graph = build("a b c d", &[("b", "a"), ("c", "a"), ("d", "b"), ("d", "c"), ("d", "c")]).unwrap();
    let levels: Vec<_> = graph.levels().iter().map(|level| names(&graph, level)).collect();
    assert_eq!(levels, ["a", "b c", "d"]);
    let seconds = |task: TaskId| Duration::from_secs([1, 2, 5, 1][task.index()]);
    let (path, length) = graph.critical_path(seconds);
    assert_eq!((names(&graph, &path).as_str(), length), ("a c d", Duration::from_secs(7)));
}

#[test]
fn diagrams_escape_labels() {
    let graph = build("a b", &[("b", "a")]).unwrap();
    assert_snapshot!(graph.to_mermaid(|task| format!("<{}> \"x\"", graph.id(task))), @r#"
    flowchart LR
        n0["&lt;a> &quot;x&quot;"]
        n1["&lt;b> &quot;x&quot;"]
        n0 --> n1
    "#);
    assert_snapshot!(graph.to_dot(|task| format!("\"{}\"\n\\", graph.id(task))), @r#"
    digraph plan {
        rankdir=LR;
        node [shape=box];
        n0 [label="\"a\"\n\\"];
        n1 [label="\"b\"\n\\"];
        n0 -> n1;
    }
    "#);
}

proptest! {
    /// `build` succeeds exactly if a topological order exists, and every reported cycle is a cycle.
    #[test]
    fn reported_cycles_exist(tasks in 1usize..12, edges in proptest::collection::vec((0usize..12, 0usize..12), 0..30)) {
        let mut graph = GraphBuilder::new();
        for at in 0..tasks {
            graph.task(at.to_string(), ());
        }
        let edges: Vec<_> = edges.into_iter().filter(|(from, to)| *from < tasks && *to < tasks).collect();
        for (from, to) in &edges {
            graph.depends_on(from.to_string(), to.to_string());
        }
        match graph.build() {
            Ok(graph) => prop_assert_eq!(graph.topological().len(), tasks),
            Err(Error::Cycle { path }) => {
                let path: Vec<usize> = path.iter().map(|id| id.parse().unwrap()).collect();
                for (at, &from) in path.iter().enumerate() {
                    prop_assert!(edges.contains(&(from, path[(at + 1) % path.len()])));
                }
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
