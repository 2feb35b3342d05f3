//! Renders reports of outputs and names with all kinds of characters.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenwave_testing::{
    CaseReport, CaseStatus, ExitReason, Harnesses, JsonLine, RunReport, Status, TestCount, TestReport,
    TestResult, TraceStatus, github_summary, junit,
};

use greenwave_testkit::schema::Schema;
use greenwave_testkit::service::is_available;

fn test(name: &str, result: TestResult, ms: u64) -> TestReport {
    let attempts = u32::from(matches!(result, TestResult::Finished(_)));
    let duration = Duration::from_millis(ms);
    TestReport {
        result,
        duration,
        attempts,
        ..TestReport::new(&greenwave_testing::Test::new(name, ["true"]), None, &Harnesses::builtin())
    }
}

fn passed(name: &str, ms: u64) -> TestReport {
    test(name, TestResult::Finished(Status::Passed), ms)
}

fn started() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_764_000_000_123)
}

fn run(tests: Vec<TestReport>) -> RunReport {
    RunReport {
        started: started(),
        wall: Duration::from_millis(4321),
        saved: Duration::from_secs(75),
        tracing: TraceStatus::Traced,
        flaky_fails: false,
        tests,
    }
}

/// Returns a run with one test per result, and with special characters in names and outputs.
fn mixed() -> RunReport {
    let cached = TestReport { age: Some(Duration::from_secs(3600)), attempts: 0, ..passed("cached", 75_000) };
    let failed = TestReport {
        output: b"\x1b[31mred\x1b[0m <b>&amp;</b>\r\n]]> \x00\x08\xff\xfe \xef\xbf\xbf end\n\n</pre>\x1b]0;title\x07".as_slice().into(),
        count: Some(TestCount { passed: 2, failed: 1 }),
        cases: vec![
            CaseReport {
                name: "a::b".to_owned(),
                status: CaseStatus::Passed,
                duration: Some(Duration::from_micros(1500)),
                output: None,
            },
            CaseReport {
                name: "c<d>".to_owned(),
                status: CaseStatus::Failed,
                duration: None,
                output: Some("why\x07".into()),
            },
            CaseReport { name: "e".to_owned(), status: CaseStatus::Skipped, duration: None, output: None },
        ],
        ..test("tests/|odd| <name> `*_\u{1}\n", TestResult::Finished(Status::Failed(ExitReason::Code(1))), 1234)
    };
    let flaky = TestReport {
        attempts: 3,
        not_cached: Some("the test passed only after a retry".to_owned()),
        ..passed("flaky", 20)
    };
    run(vec![
        cached,
        failed,
        flaky,
        test("slow", TestResult::Finished(Status::TimedOut(Duration::from_secs(2))), 2000),
        test("empty", TestResult::Finished(Status::NoTests), 1),
        test("broken", TestResult::Error("there is no `x`".to_owned()), 0),
        test("late", TestResult::NotRun, 0),
    ])
}

#[test]
fn json_lines_contain_all_results() {
    let run = mixed();
    let mut lines = vec![JsonLine::started(run.started, run.tests.len()).to_string()];
    lines.extend(run.tests.iter().map(|test| JsonLine::test(test).to_string()));
    lines.push(JsonLine::finished(&run).to_string());
    assert!(lines.iter().all(|line| !line.contains('\n')));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"event":"started","version":2,"time_ms":1764000000123,"tests":7}
    {"event":"test","name":"cached","status":"passed","cached":true,"age_ms":3600000.0,"duration_ms":75000.0,"attempts":0,"flaky":false,"output":""}
    {"event":"test","name":"tests/|odd| <name> `*_\u0001\n","status":"failed","exit_code":1,"problem":"failed with exit code 1","cached":false,"duration_ms":1234.0,"attempts":1,"flaky":false,"tests_passed":2,"tests_failed":1,"cases":[{"name":"a::b","status":"passed","duration_ms":1.5},{"name":"c<d>","status":"failed","output":"why\u0007"},{"name":"e","status":"skipped"}],"output":"\u001b[31mred\u001b[0m <b>&amp;</b>\r\n]]> \u0000\b�� ￿ end\n\n</pre>\u001b]0;title\u0007"}
    {"event":"test","name":"flaky","status":"passed","cached":false,"duration_ms":20.0,"attempts":3,"flaky":true,"not_stored":"the test passed only after a retry","output":""}
    {"event":"test","name":"slow","status":"timed_out","problem":"did not end within 2s and was killed","cached":false,"duration_ms":2000.0,"attempts":1,"flaky":false,"output":""}
    {"event":"test","name":"empty","status":"no_tests","problem":"ran no test at all","cached":false,"duration_ms":1.0,"attempts":1,"flaky":false,"output":""}
    {"event":"test","name":"broken","status":"error","problem":"could not be run: there is no `x`","cached":false,"duration_ms":0.0,"attempts":0,"flaky":false,"output":""}
    {"event":"test","name":"late","status":"not_run","cached":false,"duration_ms":0.0,"attempts":0,"flaky":false,"output":""}
    {"event":"finished","success":false,"passed":2,"failed":3,"quarantined":0,"errors":1,"not_run":1,"cached":1,"flaky":1,"tracing":"traced","wall_ms":4321.0,"saved_ms":75000.0}
    "#);
    lines.push(JsonLine::Stopped.to_string());
    let schema = Schema::parse(include_str!("../../../../docs/formats/report.schema.json"));
    for line in lines {
        let value = serde_json::from_str(&line).unwrap();
        schema.check(&value).unwrap_or_else(|problem| panic!("{problem}: {line}"));
    }
}

#[test]
fn a_summary_shows_failures_first() {
    insta::assert_snapshot!(github_summary(&mixed()), @r#"
    ## ❌ 2 of 7 tests passed, 3 failed, 1 could not be run, 1 not run, 1 flaky

    In 4.3 s. 1 cached result saved 1 min 15 s.

    ### Failures

    <details><summary><b>tests/|odd| &lt;name&gt; `*_</b> failed with exit code 1 after 1.2 s</summary>

    <pre>red &lt;b&gt;&amp;amp;&lt;/b&gt;
    ]]&gt; ��  end

    &lt;/pre&gt;</pre>

    </details>

    <details><summary><b>slow</b> did not end within 2s and was killed after 2.0 s</summary>

    </details>

    <details><summary><b>empty</b> ran no test at all after 1 ms</summary>

    </details>

    <details><summary><b>broken</b> could not be run: there is no `x`</summary>

    </details>

    ### Slowest

    | test | time | attempts |
    | --- | ---: | ---: |
    | slow | 2.0 s | 1 |
    | tests/&#124;odd&#124; &#60;name&#62; &#96;&#42;&#95; | 1.2 s | 1 |
    | flaky | 20 ms | 3 |
    | empty | 1 ms | 1 |

    ### Passed but not cached

    | test | reason |
    | --- | --- |
    | flaky | the test passed only after a retry |
    "#);
    insta::assert_snapshot!(github_summary(&run(vec![passed("a", 5)])), @r#"
    ## ✅ 1 of 1 test passed

    In 4.3 s.

    ### Slowest

    | test | time | attempts |
    | --- | ---: | ---: |
    | a | 5 ms | 1 |
    "#);
    insta::assert_snapshot!(github_summary(&run(vec![])), @r#"
    ## ❌ 0 of 0 tests passed

    In 4.3 s.
    "#);
}

#[test]
fn a_summary_stays_below_githubs_limit() {
    let failed = |at: usize| TestReport {
        output: format!("first\n{}last", "&".repeat(100_000)).into(),
        ..test(&format!("test {at} {}", "x|".repeat(5000)), TestResult::Finished(Status::NoTests), 1)
    };
    let text = github_summary(&run((0..300).map(failed).collect()));
    assert!(text.len() < 1 << 20, "{}", text.len());
    assert!(text.contains("failures more, omitted"));
    assert!(text.contains("last</pre>") && !text.contains("first"));
}

#[test]
fn junit_follows_the_schema() {
    let document = junit(&mixed());
    insta::assert_snapshot!(document, @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="greenwave" tests="9" skipped="2" failures="3" errors="1" time="4.321">
        <testsuite name="cached" tests="1" skipped="0" errors="0" failures="0" timestamp="2025-11-24T16:00:00.123+00:00" time="75.000">
            <properties>
                <property name="greenwave.age_seconds" value="3600"/>
            </properties>
            <testcase name="cached" classname="cached" time="75.000"/>
        </testsuite>
        <testsuite name="tests/|odd| &lt;name&gt; `*_" tests="3" skipped="1" errors="0" failures="1" timestamp="2025-11-24T16:00:00.123+00:00" time="1.234">
            <testcase name="a::b" classname="tests/|odd| &lt;name&gt; `*_" time="0.002"/>
            <testcase name="c&lt;d&gt;" classname="tests/|odd| &lt;name&gt; `*_">
                <failure message="failed"/>
                <system-out>why</system-out>
            </testcase>
            <testcase name="e" classname="tests/|odd| &lt;name&gt; `*_">
                <skipped/>
            </testcase>
            <system-out>red &lt;b&gt;&amp;amp;&lt;/b&gt;
    ]]&gt; ��  end

    &lt;/pre&gt;</system-out>
        </testsuite>
        <testsuite name="flaky" tests="1" skipped="0" errors="0" failures="0" timestamp="2025-11-24T16:00:00.123+00:00" time="0.020">
            <properties>
                <property name="greenwave.attempts" value="3"/>
                <property name="greenwave.not_stored" value="the test passed only after a retry"/>
            </properties>
            <testcase name="flaky" classname="flaky" time="0.020"/>
        </testsuite>
        <testsuite name="slow" tests="1" skipped="0" errors="0" failures="1" timestamp="2025-11-24T16:00:00.123+00:00" time="2.000">
            <testcase name="slow" classname="slow" time="2.000">
                <failure message="did not end within 2s and was killed"/>
            </testcase>
        </testsuite>
        <testsuite name="empty" tests="1" skipped="0" errors="0" failures="1" timestamp="2025-11-24T16:00:00.123+00:00" time="0.001">
            <testcase name="empty" classname="empty" time="0.001">
                <failure message="ran no test at all"/>
            </testcase>
        </testsuite>
        <testsuite name="broken" tests="1" skipped="0" errors="1" failures="0" timestamp="2025-11-24T16:00:00.123+00:00" time="0.000">
            <testcase name="broken" classname="broken" time="0.000">
                <error message="could not be run: there is no `x`"/>
            </testcase>
        </testsuite>
        <testsuite name="late" tests="1" skipped="1" errors="0" failures="0" timestamp="2025-11-24T16:00:00.123+00:00" time="0.000">
            <testcase name="late" classname="late" time="0.000">
                <skipped message="the run ended before"/>
            </testcase>
        </testsuite>
    </testsuites>
    "#);
    validate(&document);
    validate(&junit(&run(vec![])));
}

#[test]
fn junit_is_valid_for_any_output() {
    // Every byte, every kind of character, and pieces of XML.
    let bytes: Vec<u8> = (0..=255).collect();
    let characters: String = (0..0x11_0000_u32).step_by(251).filter_map(char::from_u32).collect();
    let outputs = [bytes, characters.into_bytes(), b"]]>".to_vec(), b"<![CDATA[ <!-- \x1b".to_vec()];
    let tests = outputs.into_iter().map(|output| {
        let text = String::from_utf8_lossy(&output).into_owned();
        TestReport {
            output: output.into(),
            not_cached: Some(text.clone()),
            ..test(&text, TestResult::Error(text.clone()), 1)
        }
    });
    validate(&junit(&run(tests.collect())));
}

/// Validates a document against the schema.
fn validate(document: &str) {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/junit.xsd");
    let mut validator = Command::new("xmllint");
    validator.args(["--noout", "--schema", schema, "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let child = validator.spawn();
    if !is_available("xmllint", &child.as_ref().map(drop)) {
        return;
    }
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{document}", String::from_utf8_lossy(&output.stderr));
}
