//! Small graphs as bit sets of dependencies, and combinations of attribute values.

use std::collections::HashSet;

/// Returns the numbers of the bits that are set.
pub(super) fn bits_of(bits: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |at| bits & 1 << at != 0)
}

/// Returns all graphs with a number of tasks, as bit sets of dependencies.
pub(super) fn graphs(tasks: usize) -> Vec<Vec<u8>> {
    let all = (0..1_u64 << (tasks * tasks)).map(|bits| {
        (0..tasks).map(|at| (bits >> (at * tasks)) as u8 & ((1 << tasks) - 1)).collect::<Vec<u8>>()
    });
    all.filter(|graph| is_acyclic(graph)).collect()
}

fn is_acyclic(graph: &[u8]) -> bool {
    let mut left = (1_u16 << graph.len()) as u8 - 1;
    while left != 0 {
        let free = bits_of(left).find(|at| graph[*at] & left == 0);
        let Some(free) = free else { return false };
        left &= !(1 << free);
    }
    true
}

/// Returns all assignments of `kinds` kinds to a number of tasks.
pub(super) fn all_kinds(tasks: usize, kinds: u8) -> impl Iterator<Item = Vec<u8>> {
    let kinds = u64::from(kinds);
    (0..kinds.pow(tasks as u32))
        .map(move |number| (0..tasks).map(|at| (number / kinds.pow(at as u32) % kinds) as u8).collect())
}

/// Returns one graph of each isomorphism class.
pub(super) fn shapes(tasks: usize) -> Vec<Vec<u8>> {
    let pairs: Vec<(usize, usize)> =
        (0..tasks).flat_map(|later| (0..later).map(move |at| (at, later))).collect();
    let mut seen = HashSet::new();
    let mut shapes = Vec::new();
    for bits in 0..1_u32 << pairs.len() {
        let mut graph = vec![0_u8; tasks];
        for (number, (at, later)) in pairs.iter().enumerate() {
            graph[*later] |= ((bits >> number & 1) as u8) << at;
        }
        let least = permutations(tasks).iter().map(|order| relabelled(&graph, order)).min().unwrap();
        if seen.insert(least) {
            shapes.push(graph);
        }
    }
    shapes
}

/// Returns a graph in which task `at` is renamed to `order[at]`.
pub(super) fn relabelled(graph: &[u8], order: &[usize]) -> Vec<u8> {
    let mut other = vec![0; graph.len()];
    for (at, after) in graph.iter().enumerate() {
        other[order[at]] = bits_of(*after).fold(0, |bits, before| bits | 1 << order[before]);
    }
    other
}

pub(super) fn permutations(tasks: usize) -> Vec<Vec<usize>> {
    (0..tasks).fold(vec![Vec::new()], |shorter, next| {
        let insert = |order: &Vec<usize>, at: usize| {
            let mut longer = order.clone();
            longer.insert(at, next);
            longer
        };
        shorter.iter().flat_map(|order| (0..=next).map(move |at| insert(order, at))).collect()
    })
}

/// Returns rows with a level for each factor, such that all pairs of levels of two factors occur
/// (after Cohen, Dalal, Fredman, Patton, "The AETG System", 1997).
pub(super) fn pairwise(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut open = std::collections::BTreeSet::new();
    for (other, count) in levels.iter().enumerate() {
        for (at, levels) in levels[..other].iter().enumerate() {
            open.extend((0..*levels).flat_map(|a| (0..*count).map(move |b| (at, a, other, b))));
        }
    }
    let mut rows = Vec::new();
    while let Some(&(at, a, other, b)) = open.iter().next() {
        let mut row: Vec<Option<usize>> = vec![None; levels.len()];
        (row[at], row[other]) = (Some(a), Some(b));
        for factor in 0..levels.len() {
            if row[factor].is_none() {
                let gain = |level: usize| {
                    let shares_resource = |(at, chosen): (usize, &Option<usize>)| {
                        chosen.is_some_and(|chosen| open.contains(&pair((at, chosen), (factor, level))))
                    };
                    row.iter().enumerate().filter(|other| shares_resource(*other)).count()
                };
                // Ties are broken differently in each row, so that levels whose pairs are covered
                // vary.
                let start = rows.len() % levels[factor];
                let turned = (0..levels[factor]).map(|level| (level + start) % levels[factor]);
                row[factor] = turned.max_by_key(|level| gain(*level));
            }
        }
        let row: Vec<usize> = row.into_iter().flatten().collect();
        for other in 0..row.len() {
            (0..other).for_each(|at| {
                open.remove(&pair((at, row[at]), (other, row[other])));
            });
        }
        rows.push(row);
    }
    rows
}

fn pair((at, a): (usize, usize), (other, b): (usize, usize)) -> (usize, usize, usize, usize) {
    if at < other { (at, a, other, b) } else { (other, b, at, a) }
}
