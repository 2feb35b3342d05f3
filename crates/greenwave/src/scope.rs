//! Selects how much of a plan a run does.

use std::collections::{BTreeSet, HashMap};

use crate::plan::{FeatureId, Plan, PlanError, nearest};

/// Part of a plan that a run does. The default is all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunScope {
    /// Ids of the features that run, besides their dependencies. Empty for all features.
    pub only: Vec<String>,
    /// Whether no stage starts after the first feature that fails.
    pub fail_fast: bool,
    /// Whether features end once their tests were seen to fail, so that no agent is asked.
    pub red_only: bool,
    /// Whether the run waits for the user's decisions about held features once nothing else is left
    /// to do. If not, it ends, and the next run continues.
    pub wait_for_approval: bool,
}

impl RunScope {
    /// Returns the features that run: those of [`only`](Self::only), with their dependencies.
    ///
    /// # Errors
    /// [`PlanError::UnknownSelection`] for an id that the plan does not have.
    pub fn select(&self, plan: &Plan) -> Result<BTreeSet<FeatureId>, PlanError> {
        if self.only.is_empty() {
            return Ok((0..plan.features.len()).map(FeatureId::from_index).collect());
        }
        let ids = plan.features.iter().map(|feature| feature.id.as_str());
        let positions: HashMap<&str, usize> = ids.zip(0..).collect();
        let (mut selected, mut waiting) = (BTreeSet::new(), self.only.clone());
        while let Some(id) = waiting.pop() {
            let Some(&index) = positions.get(id.as_str()) else {
                let mut ids = plan.features.iter().map(|feature| feature.id.as_str());
                return Err(PlanError::UnknownSelection { nearest: nearest(&id, &mut ids), name: id });
            };
            if selected.insert(FeatureId::from_index(index)) {
                waiting.extend(plan.features[index].depends_on.iter().cloned());
            }
        }
        Ok(selected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Feature;

    fn plan() -> Plan {
        let feature = |id: &str, depends_on: &[&str]| Feature {
            id: id.to_owned(),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
            ..Feature::default()
        };
        Plan { features: vec![feature("a", &[]), feature("b", &["a"]), feature("c", &[])], ..Plan::default() }
    }

    #[test]
    fn a_selection_includes_dependencies() {
        let select = |only: &[&str]| {
            let only = only.iter().map(|id| (*id).to_owned()).collect();
            let selected = RunScope { only, ..RunScope::default() }.select(&plan());
            selected.map(|ids| ids.into_iter().map(FeatureId::index).collect::<Vec<_>>())
        };
        assert_eq!(select(&[]).ok(), Some(vec![0, 1, 2]));
        assert_eq!(select(&["b"]).ok(), Some(vec![0, 1]));
        assert_eq!(select(&["c", "a"]).ok(), Some(vec![0, 2]));
        assert!(select(&["d"]).is_err());
    }
}
