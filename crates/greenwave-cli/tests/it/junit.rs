//! `harness = "junit"`: results from reports in JUnit XML, with ctest, RSpec and PHPUnit.

use serde_json::Value;

use crate::harnesses::program;
use crate::program::{Finished, Program};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Runs the tests of the project in `p`.
fn run(dir: &TestDir) -> Finished {
    let program = Program::new(["test", "--format", "json"]).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
}

/// Returns the event of the only test.
fn event(finished: &Finished) -> Value {
    finished.report().into_iter().find(|event| event["event"] == "test").unwrap()
}

/// Returns names and statuses of the single tests.
fn cases(event: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cases = event["cases"].as_array().into_iter().flatten();
    cases.map(|case| (text(&case["name"]), text(&case["status"]))).collect()
}

/// A project with one test, a shell script that gets the arguments in `arguments`.
fn scripted(script: &str, keys: &str) -> TestDir {
    let settings =
        format!("[[test]]\nname = \"t\"\nharness = \"junit\"\ninputs = [\"t.sh\", \"data\"]\n{keys}\n");
    TestDir::empty().with("p/greenwave.toml", settings).with("p/t.sh", script).with("p/data", "1")
}

const PRIVATE: &str = "command = [\"sh\", \"t.sh\", \"{report}\"]";
const FIXED: &str = "command = [\"sh\", \"t.sh\"]\nreport = \"reports/TEST-*.xml\"\noutputs = [\"reports/\"]";
const PASSING: &str = "<testsuite name=\"s\" tests=\"2\"><testcase name=\"a\" classname=\"C\" time=\"0.5\"/><testcase name=\"b\" classname=\"C\"><skipped/></testcase></testsuite>";
const FAILING: &str = "<testsuite name=\"s\"><testcase name=\"a\"/><testcase name=\"b\" classname=\"C\"><failure message=\"no\">no\nat c:3</failure></testcase></testsuite>";

fn expected(cases: &[(&str, &str)]) -> Vec<(String, String)> {
    cases.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

#[test]
fn verdicts_of_single_tests_are_cached_with_the_result() {
    let dir = scripted(&format!("echo '{PASSING}' > \"$1\""), PRIVATE);
    for cached in [false, true] {
        let event = event(&run(&dir).with_code(0));
        assert_eq!(event["cached"], cached);
        assert_eq!(cases(&event), expected(&[("C a", "passed"), ("C b", "skipped")]));
        assert_eq!((&event["cases"][0]["duration_ms"], &event["tests_passed"]), (&500.0.into(), &1.into()));
    }
}

#[test]
fn a_report_decides_if_the_exit_code_disagrees() {
    // The failure is in the report only.
    let dir = scripted(&format!("echo '{FAILING}' > \"$1\""), PRIVATE);
    let failed = event(&run(&dir).with_code(1));
    assert_eq!(failed["problem"], "failed by its report");
    assert_eq!(cases(&failed), expected(&[("s a", "passed"), ("C b", "failed")]));
    assert_eq!(failed["cases"][1]["output"], "no\nat c:3\n");
    let output = failed["output"].as_str().unwrap();
    assert!(output.contains("report: 1 of 2 tests failed\n  C b\n    no\n    at c:3\n"), "{output}");
    // The failure is in the exit code only.
    let dir = scripted(&format!("echo '{PASSING}' > \"$1\"; exit 3"), PRIVATE);
    let failed = event(&run(&dir).with_code(1));
    assert_eq!(failed["exit_code"], 3);
    let output = failed["output"].as_str().unwrap();
    assert!(output.contains("report: no test failed, but the command exited with code 3"), "{output}");
    let dir = scripted("echo '<testsuite/>' > \"$1\"", PRIVATE);
    assert_eq!(event(&run(&dir).with_code(1))["status"], "no_tests");
    let dir = scripted("echo '<testsuites errors=\"1\"><testsuite/></testsuites>' > \"$1\"", PRIVATE);
    assert_eq!(event(&run(&dir).with_code(1))["status"], "failed");
}

#[test]
fn a_report_that_is_missing_broken_or_from_an_earlier_run_is_a_failure() {
    let check = |dir: &TestDir, message: &str| {
        let failed = event(&run(dir).with_code(1));
        assert_eq!(failed["problem"], "failed by its report");
        let output = failed["output"].as_str().unwrap();
        assert!(output.contains(message), "{output}");
    };
    check(&scripted("true", PRIVATE), "report: the command has written no report to `{report}`");
    check(
        &scripted("true", FIXED),
        "report: the command has written no file that matches `reports/TEST-*.xml`",
    );
    let broken = scripted("echo '<testsuite><testcase name=\"a\"' > \"$1\"", PRIVATE);
    check(&broken, "report: cannot read `");
    let stale = scripted("true", FIXED);
    stale.write("p/reports/TEST-1.xml", PASSING);
    check(&stale, "report: `reports/TEST-1.xml` is from an earlier run: the command has written no report");
    // One of two is new.
    let half = scripted(&format!("echo '{PASSING}' > reports/TEST-2.xml"), FIXED);
    half.write("p/reports/TEST-1.xml", FAILING);
    assert_eq!(cases(&event(&run(&half).with_code(0))).len(), 2);
    let again = scripted(&format!("mkdir -p reports; echo '{PASSING}' > reports/TEST-1.xml"), FIXED);
    again.write("p/reports/TEST-1.xml", PASSING);
    assert_eq!(event(&run(&again).with_code(0))["cached"], false);
    assert_eq!(event(&run(&again).with_code(0))["cached"], true);
}

#[test]
fn a_retry_runs_only_the_failed_tests_if_they_can_be_selected() {
    // Writes down its arguments; `b` passes if it is selected.
    let script = format!(
        "echo \"$2 $3\" >> calls\n[ -n \"$2\" ] || {{ echo '{FAILING}' > \"$1\"; exit 1; }}\n\
         echo '<testsuite><testcase name=\"b\" classname=\"C\"/></testsuite>' > \"$1\""
    );
    let keys =
        format!("{PRIVATE}\nretries = 1\nselect = [\"--only\", \"^{{regex}}$\"]\noutputs = [\"calls\"]");
    let dir = scripted(&script, &keys);
    let flaky = event(&run(&dir).with_code(0));
    assert_eq!((&flaky["flaky"], &flaky["attempts"]), (&true.into(), &2.into()));
    assert_eq!(cases(&flaky), expected(&[("s a", "passed"), ("C b", "passed")]));
    assert_eq!(dir.read("p/calls"), " \n--only ^b$\n");
}

#[test]
fn keys_of_reports_are_checked() {
    let check = |keys: &str, message: &str| {
        let dir = scripted("true", keys);
        let failed = run(&dir).with_code(2);
        assert!(failed.stderr.contains(message), "{}", failed.stderr);
    };
    let command = "command = [\"sh\", \"t.sh\"]";
    check(command, "missing `report`: expected the path of the report, or `{report}` in `command`");
    for path in ["../x.xml", "/tmp/x.xml", "[", ""] {
        check(
            &format!("{command}\nreport = \"{path}\""),
            "for `report`: expected a path or glob below `directory`",
        );
    }
    let dir = scripted("true", command);
    dir.write("p/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = [\"true\"]\nreport = \"x.xml\"\n");
    let failed = run(&dir).with_code(2);
    assert!(failed.stderr.contains("`report` and `select` need `harness = \"junit\"`"), "{}", failed.stderr);
    dir.write("p/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = [\"true\"]\nharness = \"other\"\n");
    let failed = run(&dir).with_code(2);
    assert!(failed.stderr.contains("for `harness`: expected \"junit\""), "{}", failed.stderr);
}

/// Checks a runner: everything passes and is cached, and a failure in the data fails one case.
fn check_runner(dir: &TestDir, passing: &[&str], failing: &str) {
    let statuses = |failed: Option<&str>| -> Vec<(String, String)> {
        let status = |name: &&str| if failed == Some(*name) { "failed" } else { "passed" };
        passing.iter().map(|name| ((*name).to_owned(), status(name).to_owned())).collect()
    };
    let sorted = |event: &Value| {
        let mut cases = cases(event);
        cases.sort();
        cases
    };
    let first = run(dir).with_code(0);
    assert_eq!(sorted(&event(&first)), statuses(None), "{}", first.stdout);
    // The project was written just before the first run, whose result may not be stored for that
    // reason. It is older than the second one.
    run(dir).with_code(0);
    let again = run(dir);
    assert_eq!(verdicts(&again), [("t".to_owned(), true, true)], "{}{}", first.stdout, again.stdout);
    dir.write("p/data.txt", "2");
    let failed = run(dir).with_code(1);
    assert_eq!(sorted(&event(&failed)), statuses(Some(failing)), "{}", failed.stdout);
    dir.write("p/data.txt", "1");
    run(dir).with_code(0);
}

#[test]
fn ctest_writes_reports() {
    let Some(_) = program(&[&["ctest", "--version"]]) else { return };
    // A configured build directory, as `cmake` generates it.
    let dir = TestDir::empty()
        .with(
            "p/build/CTestTestfile.cmake",
            "add_test(one \"grep\" \"-q\" \"1\" \"../data.txt\")\nadd_test(two \"true\")\n",
        )
        .with("p/data.txt", "1")
        .with(
            "p/greenwave.toml",
            "[[test]]\nname = \"t\"\nharness = \"junit\"\nretries = 1\n\
             command = [\"ctest\", \"--test-dir\", \"build\", \"--output-junit\", \"{report}\"]\n\
             select = [\"-R\", \"^{regex}$\"]\noutputs = [\"build/Testing/\"]\n",
        );
    check_runner(&dir, &["one", "two"], "one");
}

#[test]
fn rspec_writes_reports() {
    let formatter = ["ruby", "-e", "require 'rspec/core'; require 'rspec_junit_formatter'"];
    let Some(_) = program(&[&formatter]) else { return };
    let dir = TestDir::empty()
        .with(
            "p/spec/data_spec.rb",
            "RSpec.describe 'data' do\n  it('is one') { expect(File.read('data.txt')).to eq '1' }\n  it('is') { }\nend\n",
        )
        .with("p/data.txt", "1")
        .with(
            "p/greenwave.toml",
            "[[test]]\nname = \"t\"\nharness = \"junit\"\nretries = 1\n\
             command = [\"rspec\", \"--format\", \"progress\", \"--require\", \"rspec_junit_formatter\", \
             \"--format\", \"RspecJunitFormatter\", \"--out\", \"{report}\"]\n\
             select = [\"{file}\", \"--example\", \"{name}\"]\n",
        );
    check_runner(
        &dir,
        &["spec.data_spec data is", "spec.data_spec data is one"],
        "spec.data_spec data is one",
    );
}

#[test]
fn phpunit_writes_reports() {
    let Some(_) = program(&[&["phpunit", "--version"]]) else { return };
    let dir = TestDir::empty()
        .with(
            "p/tests/DataTest.php",
            "<?php\nclass DataTest extends PHPUnit\\Framework\\TestCase {\n\
             public function testOne(): void { $this->assertSame('1', file_get_contents('data.txt')); }\n\
             public function testTrue(): void { $this->assertTrue(true); }\n}\n",
        )
        .with("p/data.txt", "1")
        .with(
            "p/greenwave.toml",
            "[[test]]\nname = \"t\"\nharness = \"junit\"\nretries = 1\n\
             command = [\"phpunit\", \"--do-not-cache-result\", \"--log-junit\", \"{report}\", \"tests\"]\n\
             select = [\"--filter\", \"/::{regex}$/\"]\n",
        );
    check_runner(&dir, &["DataTest testOne", "DataTest testTrue"], "DataTest testOne");
}
