//! Extreme values of every number in plans and settings: each works, or is refused with the
//! expected range.

use std::time::Duration;

use greenwave::{
    AgentSpec, Candidates, CommandSpec, Compression, Engine, Environment, Feature, Plan, Prices, Settings,
    Test, chain,
};

const DURATIONS: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
const FRACTIONS: [f64; 8] = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 0.5, 1.0, f64::MAX];

/// A plan and its settings.
struct Setup {
    plan: Plan,
    settings: Settings,
}

type Change = Box<dyn Fn(&mut Setup) + Send + Sync>;

/// Runs a plan of one feature, whose agent writes what the test expects.
async fn run(name: &str, change: &Change) {
    let directory = tempfile::tempdir().unwrap();
    let (project, copies) = (directory.path().join("project"), directory.path().join("copies"));
    std::fs::create_dir(&project).unwrap();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let command = words(&["sh", "-c", "echo > done"]);
    let spec = CommandSpec { command, ..CommandSpec::default() };
    let feature = Feature {
        id: "f".to_owned(),
        prompt: "Do it.".to_owned(),
        agent: "coder".to_owned(),
        tests: vec![Test::new("t", ["test", "-f", "done"])],
        resources: [("unit".to_owned(), 1)].into(),
        ..Feature::default()
    };
    let plan = Plan {
        name: "numbers".to_owned(),
        project,
        agents: [("coder".to_owned(), AgentSpec::Command(spec))].into(),
        resources: [("unit".to_owned(), 1)].into(),
        features: vec![feature],
        ..Plan::default()
    };
    let mut settings = Settings::default();
    settings.run.directory = Some(copies);
    let mut setup = Setup { plan, settings };
    change(&mut setup);
    let path = std::env::var_os("PATH").unwrap();
    let environment = Environment::new([("PATH".into(), path)]);
    let refused = match Engine::open(setup.plan, setup.settings, environment) {
        // Real time, for runs that would not end.
        Ok(engine) => match tokio::time::timeout(Duration::from_secs(120), engine.run()).await {
            Ok(Ok(report)) => {
                let feature = &report.features[0];
                assert!(["green", "failed"].contains(&feature.phase), "{name}: {feature:?}");
                return;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => panic!("{name}: the run does not end"),
        },
        Err(error) => chain(&error),
    };
    assert!(
        ["expected", "but the", " of resource "].iter().any(|word| refused.contains(word)),
        "{name}: {refused}"
    );
}

/// Adds a change for each of some values of an option.
fn each<T: Copy + std::fmt::Debug + Send + Sync + 'static>(
    changes: &mut Vec<(String, Change)>,
    option: &str,
    values: impl IntoIterator<Item = T>,
    change: fn(&mut Setup, T),
) {
    for value in values {
        changes.push((format!("{option} = {value:?}"), Box::new(move |setup| change(setup, value))));
    }
}

fn spec(setup: &mut Setup) -> &mut CommandSpec {
    match setup.plan.agents.get_mut("coder") {
        Some(AgentSpec::Command(spec)) => spec,
        _ => unreachable!("the agent is a command"),
    }
}

fn of_settings(changes: &mut Vec<(String, Change)>) {
    let (counts, sizes) = ([0, 1, u32::MAX], [0, 1, usize::MAX]);
    each(changes, "cache.entries", sizes, |setup, value| setup.settings.cache.entries = value);
    each(changes, "cache.ttl", DURATIONS, |setup, value| setup.settings.cache.ttl = value);
    each(changes, "parallel.workers", counts, |setup, value| setup.settings.parallel.workers = value);
    each(changes, "parallel.agents", counts, |setup, value| setup.settings.parallel.agents = value);
    each(changes, "parallel.features", counts, |setup, value| setup.settings.parallel.features = value);
    each(changes, "run.candidates", counts, |setup, value| setup.settings.run.candidates = value);
    each(changes, "storage.memory_limit", [0, 1, u64::MAX], |setup, value| {
        setup.settings.storage.memory_limit = value;
    });
    each(changes, "storage.compression", [i32::MIN, 0, 1, 19, 20, i32::MAX], |setup, level| {
        setup.settings.storage.compression = Compression::Zstd(level);
    });
    each(changes, "storage.spillover_threshold", FRACTIONS, |setup, value| {
        setup.settings.storage.spillover_threshold = value;
    });
    each(changes, "storage.promote_after", counts, |setup, value| {
        setup.settings.storage.promote_after = value;
    });
    each(changes, "pool.size", sizes, |setup, value| setup.settings.pool.size = value);
    each(changes, "pool.min", sizes, |setup, value| setup.settings.pool.min = value);
    each(changes, "pool.idle_timeout", DURATIONS, |setup, value| setup.settings.pool.idle_timeout = value);
    each(changes, "testing.disk_limit", [0, 1, u64::MAX], |setup, value| {
        setup.settings.testing.disk_limit = value;
    });
    each(changes, "testing.audit", FRACTIONS, |setup, value| setup.settings.testing.audit = value);
    each(changes, "testing.retries", counts, |setup, value| setup.settings.testing.retries = value);
    each(changes, "metrics.port", [0, u16::MAX], |setup, value| {
        setup.settings.metrics.port = value;
    });
    each(changes, "agent.time_limit", DURATIONS, |setup, value| setup.settings.agent.time_limit = value);
    each(changes, "agent.answer_limit", [0, 1, u64::MAX], |setup, value| {
        setup.settings.agent.answer_limit = value;
    });
}

fn of_plans(changes: &mut Vec<(String, Change)>) {
    let counts = [0, 1, u32::MAX];
    each(changes, "attempts", counts, |setup, value| setup.plan.features[0].attempts_max = value);
    each(changes, "candidates", counts, |setup, value| {
        setup.plan.features[0].candidates = Some(Candidates::Count(value));
    });
    each(changes, "units of a plan", counts, |setup, value| {
        setup.plan.resources.insert("unit".to_owned(), value);
    });
    each(changes, "units of a feature", counts, |setup, value| {
        setup.plan.features[0].resources.insert("unit".to_owned(), value);
    });
    each(changes, "time limit of a test", DURATIONS, |setup, value| {
        setup.plan.features[0].tests[0].time_max = value;
    });
    each(changes, "time limit of an agent", DURATIONS, |setup, value| spec(setup).time_max = Some(value));
    each(changes, "tokens", [0, 1, u64::MAX], |setup, value| setup.plan.budget.tokens = Some(value));
    each(changes, "feature_tokens", [0, 1, u64::MAX], |setup, value| {
        setup.plan.budget.feature_tokens = Some(value);
    });
    each(changes, "cost", [0, 1, u64::MAX], |setup, value| setup.plan.budget.cost = Some(value));
    each(changes, "feature_cost", [0, 1, u64::MAX], |setup, value| {
        setup.plan.budget.feature_cost = Some(value);
    });
    each(changes, "prices", [0, 1, u64::MAX], |setup, value| {
        spec(setup).prices = Some(Prices { input: value, cached: value, output: value });
    });
    each(changes, "wait of an agent", DURATIONS, |setup, value| spec(setup).wait_max = Some(value));
    each(changes, "pace", FRACTIONS, |setup, pace| {
        let script = setup.plan.project.with_file_name("script.jsonl");
        std::fs::write(
            &script,
            "{\"greenwave_script\": 1}\n{\"feature\": \"f\", \"attempt\": 1}\n{\"end\": true}\n",
        )
        .unwrap();
        setup.plan.agents.insert("coder".to_owned(), AgentSpec::Scripted { script, pace });
    });
}

#[tokio::test]
async fn every_number_works_or_is_refused() {
    let mut changes = Vec::new();
    of_settings(&mut changes);
    of_plans(&mut changes);
    assert!(changes.len() > 60, "{} values", changes.len());
    // A run waits for the disk and for processes most of the time.
    let mut runs = tokio::task::JoinSet::new();
    for (name, change) in changes {
        if runs.len() == 8 {
            runs.join_next().await.unwrap().unwrap();
        }
        runs.spawn(async move { run(&name, &change).await });
    }
    runs.join_all().await;
}
