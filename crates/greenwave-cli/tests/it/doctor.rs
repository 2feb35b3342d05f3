//! `greenwave doctor`: advice with the figure behind it.

use crate::program::Finished;
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

fn doctor(dir: &TestDir, args: &[&str]) -> Finished {
    let args = ["doctor", "--project", "project"].into_iter().chain(args.iter().copied());
    dir.greenwave(args).variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(0)
}

#[test]
fn advice_names_its_figure_and_its_rule() {
    let dir = TestDir::with_project();
    let calm = doctor(&dir, &[]).stdout;
    assert!(calm.starts_with("Nothing to change by "), "{calm}");
    dir.write(
        "project/greenwave.toml",
        "[testing]\nttl = \"1h\"\n\n[[test]]\nname = \"a\"\ncommand = \"exit 3\"\ninputs = [\"keep.txt\"]\n",
    );
    let test = dir.greenwave(["test", "--project", "project"]);
    test.variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(1);
    let shown = doctor(&dir, &[]).stdout;
    assert!(
        shown.contains("results-expire: testing.ttl = \"1h\" (project/greenwave.toml)\n  raise"),
        "{shown}"
    );
    assert!(shown.contains("failing: `a` failed, and "), "{shown}");
    assert!(shown.trim_end().ends_with(" rules apply"), "{shown}");
    let json = doctor(&dir, &["--no-cache", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rules: Vec<&str> =
        json["advice"].as_array().unwrap().iter().map(|advice| advice["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["cache-off", "results-expire", "failing"]);
}

#[test]
fn the_last_run_of_a_plan_is_looked_at() {
    let dir = TestDir::with_project();
    let feature = ShellFeature::new(
        "one",
        "answer one.txt \"no $GREENWAVE_ATTEMPT\"",
        "cat one.txt; grep -q yes one.txt",
    );
    dir.write("plan.toml", shell_plan::unconfined(&[feature.attempts(4)]));
    dir.run_plan().with_code(1);
    let shown = doctor(&dir, &[]).stdout;
    assert!(shown.contains("many-rejected: 4 of 4 attempts were rejected\n  read the reasons"), "{shown}");
}
