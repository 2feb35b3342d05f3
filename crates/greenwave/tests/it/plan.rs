//! Checks of plans, against a naive model.

use std::collections::BTreeSet;

use greenwave::{AgentSpec, CommandSpec, Feature, Plan, PlanError, PlanLocation, Test};
use proptest::prelude::*;

fn feature(id: &str, depends_on: Vec<String>, agent: &str) -> Feature {
    Feature {
        id: id.to_owned(),
        depends_on,
        prompt: "Do it.".to_owned(),
        agent: agent.to_owned(),
        tests: vec![Test::new(id, ["false"])],
        ..Feature::default()
    }
}

fn plan(features: Vec<Feature>) -> Plan {
    let command = vec!["true".to_owned()];
    let agent = AgentSpec::Command(CommandSpec { command, ..CommandSpec::default() });
    Plan {
        name: "plan".to_owned(),
        project: ".".into(),
        agents: [("coder".to_owned(), agent)].into(),
        resources: [("database".to_owned(), 2)].into(),
        features,
        ..Plan::default()
    }
}

/// Generates features with dependencies. Some ids are duplicates, and some dependencies and agents
/// are undefined.
fn features() -> impl Strategy<Value = Vec<Feature>> {
    let one = |count: usize| {
        let dependencies = proptest::collection::vec(0..count + 1, 0..3);
        (0..count * 8, dependencies, 0..30)
    };
    let all = (0..9usize).prop_flat_map(move |count| proptest::collection::vec(one(count.max(1)), count));
    all.prop_map(|all| {
        let count = all.len();
        let named = |(number, (other, dependencies, agent)): (usize, (usize, Vec<usize>, i32))| {
            // Mostly its own index. The index of another feature gives a duplicate id.
            let id = if other < count && other % 7 == 0 { other } else { number };
            let names = dependencies.into_iter().map(|other| {
                // Mostly backwards, so that some plans have no cycle.
                let other = if other < count && agent % 3 > 0 { other % (number + 1) } else { other };
                format!("f{other}")
            });
            let mut names: Vec<_> = names.collect();
            names.retain(|name| agent % 3 == 0 || *name != format!("f{number}"));
            feature(&format!("f{id}"), names, if agent == 7 { "codr" } else { "coder" })
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

/// Returns whether the features have a cycle. Repeatedly removes features without remaining
/// dependencies.
fn has_cycle(features: &[Feature]) -> bool {
    let mut left: Vec<&Feature> = features.iter().collect();
    loop {
        let waiting: BTreeSet<_> = left.iter().map(|feature| feature.id.clone()).collect();
        let before = left.len();
        left.retain(|feature| feature.depends_on.iter().any(|name| waiting.contains(name)));
        if left.is_empty() || left.len() == before {
            return !left.is_empty();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_plan_is_accepted_exactly_if_the_model_accepts_it(features in features()) {
        let ids: BTreeSet<_> = features.iter().map(|feature| feature.id.clone()).collect();
        let duplicate = ids.len() < features.len();
        let unknown = |name: &String| !ids.contains(name);
        let unknown_dependency = features.iter().any(|feature| feature.depends_on.iter().any(unknown));
        let unknown_agent = features.iter().any(|feature| feature.agent != "coder");
        let names_are_right = !duplicate && !unknown_dependency && !unknown_agent;
        let cycle = names_are_right && has_cycle(&features);
        let plan = plan(features);
        let result = plan.graph();
        match &result {
            Ok(graph) => {
                prop_assert!(!plan.features.is_empty() && names_are_right && !cycle);
                for (at, feature) in plan.features.iter().enumerate() {
                    let task = graph.find(&feature.id).unwrap();
                    prop_assert_eq!(graph.payload(task).index(), at);
                    let mut before: Vec<_> = graph.dependencies(task).iter().map(|task| graph.id(*task)).collect();
                    let mut wanted: Vec<_> = feature.depends_on.iter().map(String::as_str).collect();
                    before.sort_unstable();
                    wanted.sort_unstable();
                    wanted.dedup();
                    prop_assert_eq!(before, wanted);
                }
            }
            Err(PlanError::Empty) => prop_assert!(plan.features.is_empty()),
            Err(PlanError::DuplicateFeature { id }) => {
                prop_assert!(plan.features.iter().filter(|feature| feature.id == *id).count() > 1);
            }
            Err(PlanError::Unknown { feature, what, name, nearest }) => {
                let of = |f: &&Feature| f.id == *feature;
                let feature = plan.features.iter().find(of).unwrap();
                let named = if *what == "agent" { feature.agent == *name } else { feature.depends_on.contains(name) };
                prop_assert!(named, "{what} {name}");
                let is_defined = |name: &str| if *what == "agent" { name == "coder" } else { ids.contains(name) };
                prop_assert!(!is_defined(name) && nearest.as_deref().is_none_or(is_defined), "{name} {nearest:?}");
            }
            Err(PlanError::Cycle { path }) => {
                prop_assert!(cycle && !path.is_empty());
                // Each depends on the one after it, and the last on the first.
                for (at, id) in path.iter().enumerate() {
                    let next = &path[(at + 1) % path.len()];
                    let feature = plan.features.iter().find(|feature| feature.id == *id).unwrap();
                    prop_assert!(feature.depends_on.contains(next), "{path:?}");
                }
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        // The location of an error exists in the plan.
        if let Err(error) = &result
            && let PlanLocation::Feature { id, field, value, occurrence } = error.location()
        {
            let feature = plan.features.iter().filter(|feature| feature.id == id).nth(occurrence);
            prop_assert!(feature.is_some(), "{id} {occurrence}");
            if let (Some(value), "depends_on") = (value, field) {
                prop_assert!(feature.unwrap().depends_on.iter().any(|name| name == value), "{error}");
            }
        }
    }
}

/// Checks the error of a plan with one feature after a change.
#[track_caller]
fn check(change: impl FnOnce(&mut Plan), expected: &str) {
    let mut plan = plan(vec![feature("one", vec![], "coder")]);
    change(&mut plan);
    assert_eq!(plan.graph().unwrap_err().to_string(), expected);
}

#[test]
fn a_feature_needs_tests_attempts_and_a_prompt() {
    check(
        |plan| plan.features[0].tests.clear(),
        "invalid value `[]` for `tests` in feature `one`: expected at least one test, which shows that the feature \
         is done, or a `test_agent`",
    );
    check(
        |plan| plan.features[0].attempts_max = 0,
        "invalid value `0` for `attempts` in feature `one`: expected a whole number from 1",
    );
    check(
        |plan| plan.features[0].prompt = " \n".to_owned(),
        "invalid value `\" \\n\"` for `prompt` in feature `one`: expected text that is not blank",
    );
    check(
        |plan| plan.features[0].tests[0].command.clear(),
        "invalid value `{ command = [] }` for `tests` in feature `one`: expected commands with a program",
    );
    check(|plan| plan.features.clear(), "missing key `features`: expected at least one feature");
    check(
        |plan| plan.project = "no/such/directory".into(),
        "invalid value `\"no/such/directory\"` for `project`: expected a directory that exists",
    );
    check(
        |plan| plan.project = "Cargo.toml".into(),
        "invalid value `\"Cargo.toml\"` for `project`: expected a directory",
    );
}

#[test]
fn a_feature_needs_defined_and_sufficient_resources() {
    let wants = |name: &str, units| {
        let wanted = [(name.to_owned(), units)].into();
        move |plan: &mut Plan| plan.features[0].resources = wanted
    };
    check(wants("databse", 1), "unknown resource `databse` in feature `one`; did you mean `database`?");
    check(
        wants("database", 3),
        "invalid value `3` for `database` in feature `one`: expected at most 2, as in the plan's resources",
    );
    let mut enough = plan(vec![feature("one", vec![], "coder")]);
    wants("database", 2)(&mut enough);
    assert!(enough.graph().is_ok());
}

#[test]
fn an_id_is_a_valid_directory_name() {
    for id in ["", ".", "..", "-x", "_x", "a/b", "a b", "ä", "a\0", "a\n", ".merge"] {
        let plan = plan(vec![feature(id, vec![], "coder")]);
        assert!(matches!(plan.graph(), Err(PlanError::InvalidId { .. })), "{id:?}");
    }
    for id in ["a", "1", "A-b_c.d", "a..", "x".repeat(100).as_str()] {
        assert!(plan(vec![feature(id, vec![], "coder")]).graph().is_ok(), "{id:?}");
    }
}

#[test]
fn a_plan_has_at_most_ten_thousand_features() {
    let feature = |at: usize| Feature {
        id: format!("f{at}"),
        depends_on: at.checked_sub(1).map(|before| format!("f{before}")).into_iter().collect(),
        prompt: "Write it.".into(),
        agent: "coder".into(),
        tests: vec![Test::new("test", ["true"])],
        ..Feature::default()
    };
    assert!(plan((0..10_000).map(feature).collect()).graph().is_ok());
    let error = plan((0..10_001).map(feature).collect()).graph().unwrap_err();
    assert!(matches!(error, PlanError::TooManyFeatures { found: 10_001 }), "{error}");
}
