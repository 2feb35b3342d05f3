//! Tests of decoding Go's events.

use super::*;

/// The events of a package with a passing test, and a failing one with a failing subtest.
const EVENTS: &str = r#"# example.test/m
{"Action":"run","Package":"m","Test":"TestA"}
{"Action":"output","Package":"m","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"m","Test":"TestA","Output":"printed by A\n"}
{"Action":"output","Package":"m","Test":"TestA","Output":"--- PASS: TestA (0.25s)\n"}
{"Action":"pass","Package":"m","Test":"TestA","Elapsed":0.25}
{"Action":"output","Package":"m","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"m","Test":"TestB/x","Output":"=== RUN   TestB/x\n"}
{"Action":"output","Package":"m","Test":"TestB/x","Output":"    b_test.go:7: wrong\n"}
{"Action":"output","Package":"m","Test":"TestB","Output":"--- FAIL: TestB (0.00s)\n"}
{"Action":"output","Package":"m","Test":"TestB/x","Output":"    --- FAIL: TestB/x (0.00s)\n"}
{"Action":"fail","Package":"m","Test":"TestB/x","Elapsed":0}
{"Action":"fail","Package":"m","Test":"TestB","Elapsed":0}
{"Action":"skip","Package":"m","Test":"TestC","Elapsed":0}
{"Action":"output","Package":"m","Output":"FAIL\n"}
{"Action":"output","Package":"m","Output":"FAIL\tm\t0.3s\n"}
{"Action":"fail","Package":"m","Elapsed":0.3}
FAIL
"#;

fn decoded(events: &str, is_verbose: bool, step: usize) -> (String, Vec<CaseReport>) {
    let mut decoder = GoEvents::new(is_verbose);
    let mut text = Vec::new();
    for block in events.as_bytes().chunks(step) {
        text.extend(decoder.decode(block));
    }
    let (rest, cases) = decoder.finish();
    text.extend(rest);
    (String::from_utf8(text).expect("the events are text"), cases)
}

fn shown(cases: &[CaseReport]) -> Vec<String> {
    cases.iter().map(|case| format!("{} {:?}", case.name, case.status)).collect()
}

#[test]
fn the_text_is_that_of_go_test_without_events() {
    let expected = "# example.test/m\n--- FAIL: TestB (0.00s)\n    --- FAIL: TestB/x (0.00s)\n    \
                    b_test.go:7: wrong\nFAIL\nFAIL\tm\t0.3s\nFAIL\n";
    for step in [1, 7, 100, EVENTS.len()] {
        let (text, cases) = decoded(EVENTS, false, step);
        assert_eq!(text, expected, "{step}");
        assert_eq!(shown(&cases), ["TestA Passed", "TestB/x Failed", "TestB Failed", "TestC Skipped"]);
        assert_eq!(cases[0].duration, Some(Duration::from_millis(250)));
        let output = cases[1].output.as_deref().map(String::from_utf8_lossy);
        assert_eq!(output.as_deref(), Some("    b_test.go:7: wrong\n    --- FAIL: TestB/x (0.00s)\n"));
    }
}

#[test]
fn verbose_text_is_everything() {
    let (text, _) = decoded(EVENTS, true, 64);
    assert!(text.contains("=== RUN   TestA\nprinted by A\n--- PASS: TestA (0.25s)\n"), "{text}");
}

#[test]
fn a_test_that_ends_its_process_has_failed() {
    let events = r#"{"Action":"run","Package":"m","Test":"TestA"}
{"Action":"output","Package":"m","Test":"TestA","Output":"panic: oh no\n"}
"#;
    let package = "{\"Action\":\"fail\",\"Package\":\"m\",\"Elapsed\":0.3}\n";
    for events in [events.to_owned(), format!("{events}{package}")] {
        let (text, cases) = decoded(&events, false, 10);
        assert_eq!((text.as_str(), shown(&cases)), ("panic: oh no\n", vec!["TestA Failed".to_owned()]));
    }
}

#[test]
fn names_of_several_packages_begin_with_the_package() {
    let events = r#"{"Action":"pass","Package":"m/a","Test":"TestA","Elapsed":0}
{"Action":"pass","Package":"m/b","Test":"TestA","Elapsed":0}
"#;
    assert_eq!(shown(&decoded(events, false, 999).1), ["m/a TestA Passed", "m/b TestA Passed"]);
}

#[test]
fn what_is_no_event_stays() {
    for text in ["{\"a\": 1}\n", "{", "", "no line break", "\u{0}{\n\n{\"Action\":3}\n"] {
        assert_eq!(decoded(text, false, 2), (text.to_owned(), Vec::new()));
    }
    let long = format!("{{{}", "x".repeat(2 * LINE_BYTES_MAX));
    assert_eq!(decoded(&long, false, 16 * 1024).0, long);
}
