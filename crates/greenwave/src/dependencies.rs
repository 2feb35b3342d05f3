//! The dependencies between the features of a plan.

use greenwave_scheduler::{Graph, TaskId};

use crate::plan::FeatureId;

/// The direct dependencies of each feature, and an order in which each feature follows those that
/// it depends on.
///
/// Indirect dependencies are computed on demand. Stored, they would need space that is quadratic in
/// the length of a chain.
#[derive(Debug)]
pub(crate) struct Dependencies {
    direct: Vec<Vec<FeatureId>>,
    order: Vec<FeatureId>,
    /// Position of each feature in `order`.
    positions: Vec<usize>,
}

impl Dependencies {
    /// Copies the dependencies of a plan's graph.
    pub(crate) fn of(graph: &Graph<FeatureId>) -> Self {
        let order = graph.topological();
        let mut positions = vec![0; order.len()];
        for (position, task) in order.iter().enumerate() {
            positions[task.index()] = position;
        }
        let direct = |index| graph.dependencies(TaskId::from_index(index)).iter().copied().map(feature);
        Self {
            direct: (0..order.len()).map(|index| direct(index).collect()).collect(),
            order: order.into_iter().map(feature).collect(),
            positions,
        }
    }

    /// Returns all features, each after its dependencies.
    pub(crate) fn in_order(&self) -> &[FeatureId] {
        &self.order
    }

    /// Returns the features that a feature depends on directly.
    pub(crate) fn direct(&self, id: FeatureId) -> &[FeatureId] {
        &self.direct[id.index()]
    }

    /// Returns the features that a feature depends on directly or indirectly, each after those that
    /// it depends on.
    pub(crate) fn ancestors(&self, id: FeatureId) -> Vec<FeatureId> {
        let mut is_found = vec![false; self.direct.len()];
        let mut found = Vec::new();
        let mut next = self.direct(id).to_vec();
        while let Some(feature) = next.pop() {
            if !std::mem::replace(&mut is_found[feature.index()], true) {
                found.push(feature);
                next.extend_from_slice(self.direct(feature));
            }
        }
        found.sort_unstable_by_key(|feature| self.positions[feature.index()]);
        found
    }
}

/// Returns the feature of a task. Tasks have the order of the plan.
fn feature(task: TaskId) -> FeatureId {
    FeatureId::from_index(task.index())
}

#[cfg(test)]
mod tests {
    use greenwave_scheduler::GraphBuilder;

    use super::{Dependencies, FeatureId};

    #[test]
    fn ancestors_follow_their_own_dependencies() {
        let mut graph = GraphBuilder::new();
        for (index, id) in ["top", "left", "right", "base", "alone"].into_iter().enumerate() {
            graph.task(id, FeatureId::from_index(index));
        }
        for (id, dependency) in [("top", "left"), ("top", "right"), ("left", "base"), ("right", "base")] {
            graph.depends_on(id, dependency);
        }
        let dependencies = Dependencies::of(&graph.build().expect("the graph has no cycle"));
        let ancestors = |index| -> Vec<usize> {
            dependencies.ancestors(FeatureId::from_index(index)).into_iter().map(FeatureId::index).collect()
        };
        assert_eq!(ancestors(0), [3, 1, 2]);
        assert_eq!(ancestors(1), [3]);
        assert_eq!(ancestors(4), [0; 0]);
        assert_eq!(dependencies.in_order().len(), 5);
    }
}
