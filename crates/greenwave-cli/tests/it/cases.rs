//! Reports have a case for each single test of a unit.

use serde_json::Value;

use crate::go_verdicts::has_go;
use crate::program::{COMPILING_BOUND, Finished, Program};
use crate::pytest::Suite;
use crate::test_dir::TestDir;

/// Returns the name, status and output of each case of a unit. All have a duration.
fn cases(finished: &Finished, unit: &str) -> Vec<(String, String, String)> {
    let events = finished.events();
    let event = events.iter().find(|event| event["name"] == unit);
    let event = event.unwrap_or_else(|| panic!("no unit {unit}: {}", finished.describe()));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let case = |case: &Value| {
        assert!(case["duration_ms"].is_number(), "{case}");
        (text(&case["name"]), text(&case["status"]), text(&case["output"]))
    };
    event["cases"].as_array().into_iter().flatten().map(case).collect()
}

fn names(cases: &[(String, String, String)]) -> Vec<String> {
    cases.iter().map(|(name, status, _)| format!("{name} {status}")).collect()
}

#[test]
fn files_of_pytest_have_a_case_for_each_test() {
    let Some(suite) = Suite::new(&[
        (
            "test_a.py",
            "import pytest\n\n@pytest.mark.parametrize('x', [1, 2])\ndef test_p(x):\n    pass\n\n\
             class TestC:\n    @pytest.mark.skip\n    def test_s(self):\n        pass\n",
        ),
        ("test_b.py", "def test_ok():\n    pass\n\ndef test_bad():\n    assert 1 == 2, 'no'\n"),
        (
            "test_c.py",
            "import pytest\n\n@pytest.fixture\ndef f():\n    yield\n    raise OSError('late')\n\ndef test_t(f):\n    pass\n",
        ),
    ]) else {
        return;
    };
    let first =
        ["test_a.py::test_p[1] passed", "test_a.py::test_p[2] passed", "test_a.py::TestC::test_s skipped"];
    // The second run has the cases of cached results.
    for _ in 0..2 {
        let finished = suite.greenwave(&["--format", "json", "--junit", "../report.xml"]).run().with_code(1);
        assert_eq!(names(&cases(&finished, "py:test_a.py")), first);
        let failed = cases(&finished, "py:test_b.py");
        assert_eq!(names(&failed), ["test_b.py::test_ok passed", "test_b.py::test_bad failed"]);
        assert!(failed[1].2.contains("AssertionError: no"), "{failed:?}");
        let late = cases(&finished, "py:test_c.py");
        assert_eq!(names(&late), ["test_c.py::test_t failed"]);
        assert!(late[0].2.contains("OSError: late"), "{late:?}");
        let report = suite.dir.read("report.xml");
        assert!(report.contains("name=\"test_a.py::TestC::test_s\""), "{report}");
    }
}

#[test]
fn packages_of_go_have_a_case_for_each_test() {
    if !has_go() {
        return;
    }
    let tests = "package p\n\nimport (\n\t\"fmt\"\n\t\"testing\"\n)\n\n\
                 func TestA(t *testing.T) { fmt.Println(\"printed by A\") }\n\
                 func TestB(t *testing.T) {\n\tt.Run(\"x\", func(t *testing.T) { t.Error(\"wrong\") })\n}\n\
                 func TestC(t *testing.T) { t.Skip() }\n";
    let dir = TestDir::empty()
        .with("home/x", "")
        .with("p/go.mod", "module example.test/p\n\ngo 1.19\n")
        .with("p/p_test.go", tests);
    let program = Program::new(["test", "--format", "json"]).within(&dir.path("p")).bound(COMPILING_BOUND);
    let program = program.variable("HOME", dir.path("home")).variable("XDG_CACHE_HOME", dir.path("cache"));
    let finished = program.run().with_code(1);
    let found = cases(&finished, "go:.");
    assert_eq!(names(&found), ["TestA passed", "TestB/x failed", "TestB failed", "TestC skipped"]);
    assert!(found[1].2.contains("p_test.go:10: wrong"), "{found:?}");
    let output =
        finished.events().into_iter().find(|event| event["name"] == "go:.").unwrap()["output"].clone();
    let output = output.as_str().unwrap();
    assert!(output.starts_with("--- FAIL: TestB (0.00s)\n    --- FAIL: TestB/x (0.00s)\n"), "{output}");
    assert!(!output.contains("printed by A") && !output.contains("Action"), "{output}");
}
