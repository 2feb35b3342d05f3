//! Runs a plan in a project whose tests a harness of the caller's discovers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use greenwave::{
    AgentSpec, CommandSpec, ConfineMode, Engine, Environment, Event, Feature, Plan, Settings, Test, TestError,
};
use greenwave_testing::{
    CommandHarness, Discovery, DiscoveryInputs, Harness, HarnessName, Harnesses, Project, Summary,
};

/// A harness of files `NAME.check`, which pass if their first word is "check". An empty file has no
/// test, and each other file is a shell script.
#[derive(Debug)]
struct Checks;

#[async_trait]
impl Harness for Checks {
    fn name(&self) -> &'static str {
        "checks"
    }

    fn recognizes(&self, command: &[String]) -> bool {
        command.last().is_some_and(|word| word.ends_with(".check"))
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs::default()
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, TestError> {
        let names = project.files().iter().filter_map(|file| file.to_str());
        let test = |file: &str| Test {
            harness: HarnessName::new("checks"),
            ..Test::new(file, ["grep", "-q", "^check", file])
        };
        let tests = names.filter(|file| file.ends_with(".check")).map(test).collect();
        Ok(Discovery { tests, ..Discovery::default() })
    }

    fn may_have_tests(&self, test: &Test, project: &Path) -> bool {
        fs::metadata(project.join(&test.name)).is_ok_and(|file| file.len() > 0)
    }

    fn as_program(&self, test: &Test, _: &Path) -> Option<Test> {
        let command = vec!["sh".to_owned(), test.name.clone()];
        Some(Test { command, harness: HarnessName::default(), ..test.clone() })
    }

    fn parse_summary(&self, test: &Test, exit_code: Option<i32>, output: &[u8]) -> Summary {
        CommandHarness.parse_summary(test, exit_code, output)
    }
}

fn plan(project: PathBuf) -> Plan {
    let answer = "cat > /dev/null; printf '```text f.txt\\nok\\n```\\n'";
    let command = ["sh", "-c", answer].map(str::to_owned).to_vec();
    let agent = AgentSpec::Command(CommandSpec { command, ..CommandSpec::default() });
    let feature = Feature {
        id: "f".to_owned(),
        prompt: "Write it.".to_owned(),
        agent: "a".to_owned(),
        tests: vec![Test::new("f", ["grep", "-q", "ok", "f.txt"])],
        ..Feature::default()
    };
    Plan {
        name: "plan".to_owned(),
        project,
        agents: [("a".to_owned(), agent)].into(),
        features: vec![feature],
        ..Plan::default()
    }
}

#[tokio::test]
async fn a_custom_harness_decides_which_tests_guard_the_project() {
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path().join("project");
    fs::create_dir(&project).unwrap();
    for (name, content) in [
        ("real.check", "check\n"),
        ("script.check", "test -d .\n"),
        ("bad.check", "exit 1\n"),
        ("empty.check", ""),
    ] {
        fs::write(project.join(name), content).unwrap();
    }
    let mut settings = Settings::default();
    settings.run.confine = ConfineMode::Off;
    settings.run.directory = Some(directory.path().join("copies"));
    let environment = Environment::new(std::env::vars_os());
    let harnesses = Harnesses::builtin().with(Arc::new(Checks));
    let engine = Engine::open(plan(project), settings, environment).unwrap().with_harnesses(harnesses);
    let mut events = engine.events();
    let run = tokio::spawn(engine.run());
    let mut statuses: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        if let Event::Tests { test, phase, status, .. } = event {
            statuses.entry((phase, test)).or_default().push(status);
        }
    }
    assert!(run.await.unwrap().unwrap().all_green());
    let of = |phase: &str| {
        let tests = statuses.iter().filter(|((in_phase, _), _)| *in_phase == phase);
        tests.map(|((_, test), statuses)| format!("{test}: {}", statuses.join(", "))).collect::<Vec<_>>()
    };
    assert_eq!(
        of("baseline"),
        [
            "bad.check: failed with exit code 1, failed with exit code 1",
            "real.check: passed",
            "script.check: failed with exit code 1, passed"
        ]
    );
    assert_eq!(of("merging"), ["f: passed", "real.check: passed", "script.check: passed"]);
}
