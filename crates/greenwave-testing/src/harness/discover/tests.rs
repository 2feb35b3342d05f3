//! Tests of stored discoveries and the program that made them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::{DiscoveryInputs, Harness, Summary, Test};

/// A harness that finds one test and counts its discoveries.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait]
impl Harness for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn recognizes(&self, _command: &[String]) -> bool {
        false
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs::default()
    }

    async fn discover(&self, _project: &Project) -> Result<Discovery, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Discovery { tests: vec![Test::new("one", ["true"])], ..Discovery::default() })
    }

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, _output: &[u8]) -> Summary {
        Summary::default()
    }
}

async fn check(programs: [Option<&Path>; 2], discoveries: usize) {
    let project = tempfile::tempdir().unwrap();
    let harness = Arc::new(Counting::default());
    let harnesses = Harnesses::builtin().with(harness.clone());
    let (environment, key) = (Environment::new([]), UserKey::new([1; 32]));
    for program in programs {
        let program = program.map(Path::to_owned);
        let found = discover_as(program, project.path(), &harnesses, &environment, &key).await.unwrap();
        assert_eq!(found.tests.len(), 1);
    }
    assert_eq!(harness.0.load(Ordering::Relaxed), discoveries, "{programs:?}");
}

#[tokio::test]
async fn another_build_of_the_program_discovers_again() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
    std::fs::write(&old, "program").unwrap();
    std::fs::write(&new, "program").unwrap();
    check([Some(&old), Some(&old)], 1).await;
    check([Some(&old), Some(&new)], 2).await;
}

#[tokio::test]
async fn a_program_without_a_file_reuses_nothing() {
    check([None, None], 2).await;
    check([Some(Path::new("/no/such/program")); 2], 2).await;
}
