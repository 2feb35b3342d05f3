//! Panics of harnesses and observers: they fail at most the tests during which they occur.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use greenwave_testing::{
    BuildOutput, BuildRequest, Discovery, DiscoveryInputs, Environment, Error, Harness, HarnessName,
    Harnesses, Listing, ListingContext, OutputDecoder, OutputObserver, Project, RunnerOptions, Suite,
    Summary, Test, TestCount,
};

/// A harness that panics for tests whose name says so.
#[derive(Debug)]
struct Panicking;

#[derive(Debug)]
struct PanickingDecoder;

impl OutputDecoder for PanickingDecoder {
    fn decode(&mut self, _: &[u8]) -> Vec<u8> {
        panic!("a bad decoder")
    }

    fn finish(&mut self) -> (Vec<u8>, Vec<greenwave_testing::CaseReport>) {
        Default::default()
    }
}

#[async_trait]
impl Harness for Panicking {
    fn name(&self) -> &'static str {
        "panicking"
    }

    fn recognizes(&self, _: &[String]) -> bool {
        false
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs::default()
    }

    async fn discover(&self, _: &Project) -> Result<Discovery, Error> {
        tokio::task::yield_now().await;
        panic!("a bad discovery")
    }

    async fn list(&self, _: &[&Test], _: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        panic!("a bad list")
    }

    fn needs_build(&self, test: &Test) -> bool {
        test.name == "build"
    }

    async fn build(&self, _: &BuildRequest<'_>) -> Result<Option<Arc<dyn BuildOutput>>, Error> {
        panic!("a bad build")
    }

    fn decoder(&self, test: &Test) -> Option<Box<dyn OutputDecoder>> {
        (test.name == "decoder").then(|| Box::new(PanickingDecoder) as _)
    }

    fn parse_summary(&self, test: &Test, _: Option<i32>, output: &[u8]) -> Summary {
        assert!(test.name != "summary", "a bad summary");
        Summary::of_count(TestCount::find(output))
    }
}

async fn messages(names: &[&str], options: RunnerOptions) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("input"), "").unwrap();
    let test = |name: &&str| Test {
        harness: HarnessName::new("panicking"),
        ..Test::new(*name, ["sh", "-c", &format!("echo {name}")])
    };
    let harnesses = Harnesses::builtin().with(Arc::new(Panicking));
    let suite = Suite::builder(directory.path())
        .tests(names.iter().map(test).collect())
        .environment(Environment::new(std::env::vars_os()))
        .runner(RunnerOptions { harnesses, ..options })
        .open()
        .unwrap();
    let ids: Vec<_> = suite.ids().collect();
    let report = suite.run(&ids, |_| ()).await.unwrap();
    let shown = report.results.into_iter().map(|result| match result {
        Some(Ok(outcome)) => format!("{:?}", outcome.status),
        Some(Err(error)) => match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
        None => "no result".to_owned(),
    });
    shown.collect()
}

#[tokio::test]
async fn a_panicking_harness_fails_only_its_test() {
    let messages = messages(&["decoder", "plain", "summary"], RunnerOptions::default()).await;
    assert_eq!(
        messages,
        [
            "cannot run test `decoder`: the code that runs it panicked: a bad decoder",
            "Passed",
            "cannot run test `summary`: the code that runs it panicked: a bad summary",
        ]
    );
}

#[tokio::test]
async fn a_panicking_build_fails_the_tests_of_its_directory() {
    let messages = messages(&["build"], RunnerOptions::default()).await;
    assert_eq!(
        messages,
        ["cannot build the panicking tests in : the panicking harness panicked: a bad build"]
    );
}

#[tokio::test]
async fn a_panicking_discovery_is_an_error() {
    let harnesses = Harnesses::builtin().with(Arc::new(Panicking));
    let directory = tempfile::tempdir().unwrap();
    let environment = Environment::new(std::env::vars_os());
    let project = Project::new(directory.path(), Vec::new(), &environment);
    let error = harnesses.discover(&project).await.unwrap_err();
    assert_eq!(error.to_string(), "the panicking harness panicked: a bad discovery");
}

#[tokio::test]
async fn a_panicking_observer_fails_no_test_and_is_not_called_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let observer = OutputObserver::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        panic!("a bad observer");
    });
    let options = RunnerOptions { output: Some(observer), ..RunnerOptions::default() };
    assert_eq!(messages(&["one"], options.clone()).await, ["Passed"]);
    assert_eq!(messages(&["two"], options).await, ["Passed"]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
