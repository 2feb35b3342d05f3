//! A harness for vitest: one test for each file, whose summary is read from vitest's output.
//!
//! ```console
//! $ cargo run -p greenwave-testing --example custom_harness -- path/to/project
//! ```

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use greenwave_testing::{
    BuildOutput, Discovery, DiscoveryInputs, Environment, Error, Harness, HarnessName, Harnesses, LaunchSpec,
    Project, Summary, Test, TestCount, UserKey, discover,
};

#[derive(Debug)]
struct Vitest;

#[async_trait]
impl Harness for Vitest {
    fn name(&self) -> &'static str {
        "vitest"
    }
    fn recognizes(&self, command: &[String]) -> bool {
        matches!(command, [npx, vitest, ..] if npx == "npx" && vitest == "vitest")
    }
    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs { programs: &["npx"], ..DiscoveryInputs::default() }
    }
    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let is_test = |file: &&PathBuf| file.to_string_lossy().ends_with(".test.ts");
        let tests: Vec<Test> = project.files().iter().filter(is_test).map(|file| test(file)).collect();
        let notes = project.missing_program("npx", tests.len()).into_iter().collect();
        Ok(Discovery { tests, notes, ..Discovery::default() })
    }
    fn launch(&self, _test: &Test, _built: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        command.variables([("NO_COLOR".into(), "1".into())])
    }
    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        let text = String::from_utf8_lossy(output);
        // `      Tests  1 failed | 3 passed (4)`
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Tests "));
        let number = |line: &str, what: &str| {
            let part = line.split(['|', '(']).find_map(|part| part.trim().strip_suffix(what));
            part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Summary::of_count(
            line.map(|line| TestCount { passed: number(line, "passed"), failed: number(line, "failed") }),
        )
    }
}

fn test(file: &Path) -> Test {
    let (file, harness) = (file.to_string_lossy(), HarnessName::new("vitest"));
    Test { harness, ..Test::new(format!("vitest:{file}"), ["npx", "vitest", "run", &file]) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let project = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    let harnesses = Harnesses::builtin().with(Arc::new(Vitest));
    let found =
        discover(&project, &harnesses, &Environment::new(std::env::vars_os()), &UserKey::random()?).await?;
    print!("{}", found.init_text());
    Ok(())
}

#[cfg(test)]
greenwave_testing::harness_conformance!(greenwave_testing::conformance::Fixture {
    harness: Arc::new(Vitest),
    environment: Environment::new([]),
    files: vec![("src/a.test.ts", "")],
    command: vec!["npx", "vitest", "run", "src/a.test.ts"],
    output: " Test Files  1 failed (1)\n      Tests  1 failed | 3 passed (4)\n",
    count: (3, 1),
});
