//! Tests of reading and comparing verdicts.

use super::*;

fn listed(verdicts: &Verdicts) -> Vec<String> {
    verdicts.tests.iter().map(|(name, verdicts)| format!("{name} {verdicts:?}")).collect()
}

#[test]
fn junit_reports_of_pytest_and_ctest_are_read() {
    let text = r#"<testsuites><testsuite>
        <testcase classname="tests.test_a.TestB" name="test_c[1&amp;2]"/>
        <testcase classname="tests.test_a" name="test_d"><failure message="m">t</failure></testcase>
        <testcase classname="tests.test_a" name="test_e"><skipped/></testcase>
        <testcase name="f" classname="f" status="run"><system-out>x</system-out></testcase>
        <testcase name="g" status="notrun"><skipped/></testcase>
    </testsuite></testsuites>"#;
    let expected = [
        "f [Passed]",
        "g [Skipped]",
        "tests.test_a.TestB.test_c[1&2] [Passed]",
        "tests.test_a.test_d [Failed]",
        "tests.test_a.test_e [Skipped]",
    ];
    assert_eq!(listed(&Verdicts::from_junit(text).expect("the report is well-formed")), expected);
    assert!(Verdicts::from_junit("<testsuite><testcase").is_err());
}

#[test]
fn the_output_of_rust_and_go_is_read() {
    let text =
        "test a::b ... ok\ntest a::p - should panic ... ok\ntest c ... FAILED\ntest d ... ignored, why\n";
    assert_eq!(
        listed(&Verdicts::from_libtest(text)),
        ["a::b [Passed]", "a::p [Passed]", "c [Failed]", "d [Skipped]"]
    );
    let text = r#"{"Action":"run","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Test":"TestB/x"}
{"Action":"pass","Package":"p"}"#;
    assert_eq!(listed(&Verdicts::from_go(text)), ["TestA [Passed]", "TestB/x [Failed]"]);
    let totals = Verdicts::from_totals("# pass 3\n# fail 0\n  2 passing (3s)\n  1 failing\n");
    assert_eq!(
        listed(&totals),
        ["failing [Failed]", "pass [Passed, Passed, Passed]", "passing [Passed, Passed]"]
    );
}

#[test]
fn the_last_total_of_tap_is_read() {
    let text = "  # { total: 1, pass: 1 }\n# { total: 4, pass: 2, fail: 1, skip: 1 }\n# time=29ms\n";
    assert_eq!(
        listed(&Verdicts::from_totals(text)),
        ["fail [Failed]", "pass [Passed, Passed]", "skip [Skipped]"]
    );
}

#[test]
fn differing_missing_and_additional_tests_are_named() {
    let own = Verdicts::from_libtest("test a ... ok\ntest b ... ok\ntest flaky ... ok\n");
    let ours = Verdicts::from_libtest("test a ... FAILED\ntest c ... ok\ntest flaky ... FAILED\n");
    let expected = [
        "a: passed by its own runner, failed with greenwave",
        "b: passed by its own runner, missing with greenwave",
        "c: missing by its own runner, passed with greenwave",
    ];
    assert_eq!(own.differences(&ours, &BTreeSet::from(["flaky"])), expected);
    let failed = Verdicts { success: true, ..own.clone() };
    let expected = ["the suite fails by its own runner and passes with greenwave"];
    assert_eq!(own.differences(&failed, &BTreeSet::new()), expected);
}

#[test]
fn greenwaves_report_is_read() {
    let text = r#"{"event":"started"}
{"event":"test","name":"py:t.py","status":"failed","cases":[{"name":"t.py::C::a[x::/y]","status":"passed"},{"name":"t.py::b","status":"failed"}]}
{"event":"test","name":"py:u.py","status":"timed_out"}
{"event":"finished","success":false,"cached":1}"#;
    let report = Report::parse(text).expect("the run has finished");
    let verdicts = Verdicts::from_greenwave(&report, pytest_name);
    assert_eq!(listed(&verdicts), ["py:u.py [Failed]", "t.C.a[x::/y] [Passed]", "t.b [Failed]"]);
    assert_eq!((report.cached, verdicts.success, verdicts.len()), (1, false, 3));
    assert!(Report::parse(r#"{"event":"started"}"#).is_err());
}
