//! Outputs of real test runners, and the texts made from them.

use std::path::Path;

use super::FailureText;

/// Size limit of the texts, in bytes.
const BYTES_MAX: usize = 7 * 1024;

#[track_caller]
fn check(output: &str, failing: &[&str], contains: &[&str], lacks: &[&str]) {
    let failure = FailureText::of_output(output.as_bytes(), &[Path::new("/state/work/one")], BYTES_MAX);
    assert_eq!(failure.failing.iter().map(String::as_str).collect::<Vec<_>>(), failing, "{}", failure.text);
    for part in contains {
        assert!(failure.text.contains(part), "lacks {part:?}:\n{}", failure.text);
    }
    for part in lacks {
        assert!(!failure.text.contains(part), "contains {part:?}:\n{}", failure.text);
    }
}

#[test]
fn cargo_test() {
    let output = "\u{1b}[1m\u{1b}[32m   Compiling\u{1b}[0m one v0.1.0 (/state/work/one)\n\
        warning: unused variable: `x`\n --> src/lib.rs:3:9\n  |\n3 |     let x = 1;\n  |         ^ help\n\n\
        \u{1b}[1m\u{1b}[32m    Finished\u{1b}[0m `test` profile\n     Running unittests src/lib.rs\n\n\
        running 2 tests\ntest tests::adds ... ok\ntest tests::multiplies ... FAILED\n\nfailures:\n\n\
        ---- tests::multiplies stdout ----\n\nthread 'tests::multiplies' panicked at /state/work/one/src/lib.rs:14:9:\n\
        assertion `left == right` failed\n  left: 4\n right: 5\n\
        note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n\n\
        failures:\n    tests::multiplies\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    check(
        output,
        &["tests::multiplies"],
        &["Failing tests: tests::multiplies", "panicked at src/lib.rs:14:9", "left: 4", "1 passed; 1 failed"],
        &["Compiling", "unused variable", "adds ... ok", "RUST_BACKTRACE", "/state", "\u{1b}"],
    );
}

#[test]
fn cargo_build_errors() {
    let output = "   Compiling one v0.1.0 (/state/work/one)\nerror[E0425]: cannot find function `lex` in this scope\n \
        --> tests/lex.rs:5:16\n  |\n5 |     assert_eq!(lex(\"a\"), 1);\n  |                ^^^ not found in this scope\n\n\
        For more information about this error, try `rustc --explain E0425`.\n\
        error: could not compile `one` (test \"lex\") due to 1 previous error\n";
    check(output, &[], &["cannot find function `lex`", "--> tests/lex.rs:5:16"], &["Compiling"]);
}

#[test]
fn pytest() {
    let output = "============================= test session starts ==============================\n\
        platform linux -- Python 3.11.7, pytest-8.3.4, pluggy-1.5.0\nrootdir: /state/work/one\n\
        collected 2 items\n\ntest_add.py .F                                                           [100%]\n\n\
        =================================== FAILURES ===================================\n\
        ___________________________________ test_mul ___________________________________\n\n    def test_mul():\n        \
        x = add(2, 2)\n>       assert x == 5, \"sum\"\nE       AssertionError: sum\nE       assert 4 == 5\n\n\
        test_add.py:5: AssertionError\n=========================== short test summary info ============================\n\
        FAILED test_add.py::test_mul - AssertionError: sum\n\
        ========================= 1 failed, 1 passed in 0.03s ==========================\n";
    check(
        output,
        &["test_add.py::test_mul"],
        &["E       assert 4 == 5", "test_add.py:5: AssertionError", "1 failed, 1 passed"],
        &["platform linux", "rootdir", "[100%]", "session starts"],
    );
}

#[test]
fn go_test() {
    let output = "=== RUN   TestOk\n--- PASS: TestOk (0.00s)\n=== RUN   TestSum\n=== RUN   TestSum/two\n    \
        a_test.go:4: got 2, want 3\n--- FAIL: TestSum (0.00s)\n    --- FAIL: TestSum/two (0.00s)\nFAIL\nFAIL\tx\t0.032s\nFAIL\n";
    check(
        output,
        &["TestSum", "TestSum/two"],
        &["a_test.go:4: got 2, want 3", "--- FAIL: TestSum"],
        &["=== RUN", "TestOk"],
    );
}

#[test]
fn node_test_in_tap() {
    let output = "TAP version 13\n# Subtest: adds\nok 1 - adds\n  ---\n  duration_ms: 1.440213\n  ...\n\
        # Subtest: multiplies\nnot ok 2 - multiplies\n  ---\n  duration_ms: 33.372599\n  \
        location: '/state/work/one/a.test.mjs:3:1'\n  error: '4 == 5'\n  expected: 5\n  actual: 4\n  ...\n1..2\n\
        # tests 2\n# pass 1\n# fail 1\n# cancelled 0\n";
    check(
        output,
        &["multiplies"],
        &["not ok 2 - multiplies", "error: '4 == 5'", "location: 'a.test.mjs:3:1'", "# fail 1"],
        &["ok 1 - adds", "1.440213", "TAP version"],
    );
}

#[test]
fn node_test_in_the_spec_format() {
    let output = "✔ adds (5.63228ms)\n✖ multiplies (1.18887ms)\n  AssertionError [ERR_ASSERTION]: 4 == 5\n      \
        at TestContext.<anonymous> (file:///state/work/one/a.test.mjs:3:33)\n\n✖ failing tests:\n\n\
        test at a.test.mjs:3:1\n✖ multiplies (1.18887ms)\n";
    check(output, &["multiplies"], &["4 == 5", "(a.test.mjs:3:33)"], &["✔ adds", "file://"]);
}

#[test]
fn jest() {
    let output = "PASS src/b.test.js\nFAIL src/a.test.js\n  math\n    ✓ adds (2 ms)\n    ✕ multiplies (3 ms)\n\n  \
        ● math › multiplies\n\n    expect(received).toBe(expected) // Object.is equality\n\n    Expected: 5\n    \
        Received: 4\n\n      at Object.<anonymous> (src/a.test.js:3:21)\n\nTest Suites: 1 failed, 1 passed, 2 total\n\
        Tests:       1 failed, 2 passed, 3 total\nSnapshots:   0 total\nTime:        0.5 s\n";
    check(
        output,
        &["math › multiplies"],
        &["Expected: 5", "Received: 4", "FAIL src/a.test.js", "src/a.test.js:3:21"],
        &["PASS src/b", "✓ adds", "Snapshots", "Time:"],
    );
}

#[test]
fn output_of_an_unknown_program_is_cleaned() {
    let output = "downloading  10%\rdownloading  50%\rdownloading 100%\n\u{1b}]0;title\u{7}\u{1b}[31mwant 3\u{1b}[0m, got 2\n\
        dots\u{8}\u{8}\u{8}\u{8}done\nsame\nsame\nsame\nsame\nat /state/work/one/src/x.sh:3\r\n";
    check(
        output,
        &[],
        &["downloading 100%\nwant 3, got 2\ndone\nsame\n[the line above repeats 3 times]\nat src/x.sh:3"],
        &["10%", "title", "\r", "\u{1b}", "\u{8}"],
    );
}

#[test]
fn long_output_is_cut_in_the_middle() {
    let lines: String = (0..5000).map(|at| format!("line {at}\n")).collect();
    let failure = FailureText::of_output(lines.as_bytes(), &[], BYTES_MAX);
    assert!(failure.text.len() <= 8 * 1024, "{}", failure.text.len());
    assert!(failure.text.starts_with("line 0\n") && failure.text.ends_with("line 4999"), "{}", failure.text);
    let mark = failure.text.lines().find(|line| line.ends_with(" bytes left out]")).unwrap();
    let left_out: usize = mark[1..].split(' ').next().unwrap().parse().unwrap();
    let shown = failure.text.len() - mark.len() - 1;
    assert_eq!(shown + left_out, lines.trim_end().len());
    let long = FailureText::of_output("ä".repeat(100_000).as_bytes(), &[], BYTES_MAX);
    assert!(long.text.len() <= 8 * 1024 && long.text.contains("left out"));
}

/// No output, however broken, makes the functions panic or exceed their bounds.
#[test]
fn arbitrary_bytes_are_accepted() {
    use proptest::prelude::*;
    let piece = prop_oneof![
        Just("\u{1b}[".to_owned()),
        Just("\u{1b}]".to_owned()),
        Just("\u{9b}".to_owned()),
        Just("ok 1 - ".to_owned()),
        Just("--- FAIL: ".to_owned()),
        Just("test result: ".to_owned()),
        Just("FAILED ".to_owned()),
        "\\PC{0,20}",
        "[\\x00-\\x1f]{0,3}",
    ];
    let mut runner = proptest::test_runner::TestRunner::default();
    let pieces = proptest::collection::vec(piece, 0..60);
    let checked = runner.run(&pieces, |pieces| {
        let failure = FailureText::of_output(pieces.concat().as_bytes(), &[Path::new("/tmp")], BYTES_MAX);
        prop_assert!(failure.text.len() <= 9 * 1024);
        prop_assert!(!failure.text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        Ok(())
    });
    checked.unwrap();
}

#[track_caller]
fn check_brief(output: &str, bytes_max: usize, expected: &str) {
    let brief = FailureText::brief(output.as_bytes(), &[Path::new("/state/work/one")], bytes_max);
    assert_eq!(brief.text, expected);
}

#[test]
fn brief_pytest() {
    let output = "=================================== FAILURES ===================================\n\
        ___________________________________ test_mul ___________________________________\n\n    def test_mul():\n\
        >       assert add(2, 2) == 5\nE       assert 4 == 5\nE        +  where 4 = add(2, 2)\n\n\
        test_add.py:5: AssertionError\n________________________ TestAll.test_error ________________________\n\n\
        test_add.py:9: \n_ _ _ _ _ _\n\n>       raise ValueError(1)\nE       ValueError: 1\n\nlib.py:3: ValueError\n\
        ____________________ ERROR collecting test_b.py ____________________\nE   ModuleNotFoundError: no x\n\
        =========================== short test summary info ============================\n\
        FAILED test_add.py::test_mul - assert 4 == 5\n\
        ============================== 2 failed in 0.03s ===============================\n";
    let expected = "test_add.py:5: test_mul: assert 4 == 5\nlib.py:3: TestAll.test_error: ValueError: 1\n\
        ERROR collecting test_b.py: ModuleNotFoundError: no x";
    check_brief(output, BYTES_MAX, expected);
    check_brief(output, 40, "test_add.py:5: test_mul: assert 4 == 5\n[2 more left out]");
    // Results while they are determined.
    let output = "a.py::test_a FAILED\ndef test_a():\n>   assert f() == 0\n\
        E   assert 1 == 0\n\na.py:8: AssertionError\na.py::test_b PASSED\n";
    check_brief(output, BYTES_MAX, "a.py:8: test_a: assert 1 == 0");
}

#[test]
fn brief_cargo() {
    let output = "running 2 tests\ntest tests::a ... FAILED\n\n---- tests::a stdout ----\n\n\
        thread 'tests::a' (7) panicked at /state/work/one/src/lib.rs:14:9:\n\
        assertion `left == right` failed\n  left: 4\n right: 5\n\
        note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    let expected = "src/lib.rs:14: tests::a: left: 4; right: 5";
    check_brief(output, BYTES_MAX, expected);
    let traced = output
        .replace("note: run with", "stack backtrace:\n   0: __rustc::rust_begin_unwind\nnote: run with");
    check_brief(&traced, BYTES_MAX, expected);
    let explained = output.replace("right` failed", "right` failed: wrong sum");
    check_brief(&explained, BYTES_MAX, "src/lib.rs:14: tests::a: wrong sum; left: 4; right: 5");
    let output = "error[E0425]: cannot find function `lex` in this scope\n --> tests/lex.rs:5:16\n  |\n\
        error: could not compile `one` (test \"lex\") due to 1 previous error\n";
    let expected = "tests/lex.rs:5: error[E0425]: cannot find function `lex` in this scope";
    check_brief(output, BYTES_MAX, expected);
}

#[test]
fn brief_go() {
    let output = "--- FAIL: TestAdd (0.00s)\n    add_test.go:7: want 5, got 4\n--- FAIL: TestB (0.00s)\n    \
        --- FAIL: TestB/one (0.00s)\n        b_test.go:9: no\nFAIL\nFAIL\texample.com/one\t0.002s\n";
    check_brief(output, BYTES_MAX, "add_test.go:7: TestAdd: want 5, got 4\nb_test.go:9: TestB/one: no");
}

/// The output of Node.js 20.20.2.
#[test]
fn brief_node() {
    let expected = "a.test.js:2: adds numbers: Expected values to be strictly equal:; 2 !== 3\n\
        a.test.js:4: inner fails: Expected values to be strictly deep-equal:; +     2; -     3\n\
        a.test.js:5: throws: cannot do it\n\
        a.test.js:6: times out: test timed out after 20ms\n\
        a.test.js:7: ok message: a custom message";
    check_brief(include_str!("outputs/node-tap.txt"), BYTES_MAX, expected);
    let expected = expected.replace("cannot do it", "TypeError [Error]: cannot do it");
    check_brief(include_str!("outputs/node-spec.txt"), BYTES_MAX, &expected);
}

/// The output of Jest 29.7.0.
#[test]
fn brief_jest() {
    let expected = "sum.test.js:2: adds numbers: expect(received).toBe(expected) // Object.is equality; \
        Expected: 3; Received: 2\n\
        sum.test.js:5: group › inner: expect(received).toEqual(expected) // deep equality; -     3,; +     2,\n\
        sum.test.js:8: throws: TypeError: cannot do it\n\
        sum.test.js:9: times out: thrown: \"Exceeded timeout of 20 ms for a test.; Add a timeout value to \
        this test to increase the timeout, if this is a long-running test. See https://jestjs.io/…\n\
        broken.test.js:1: Test suite failed to run: Cannot find module './missing' from 'broken.test.js'";
    check_brief(include_str!("outputs/jest.txt"), BYTES_MAX, expected);
}

#[test]
fn brief_texts_of_other_programs_are_the_usual_ones() {
    check_brief("want 1, got 2\n", BYTES_MAX, "want 1, got 2");
    check_brief("", BYTES_MAX, "");
}

#[test]
fn brief_lines_are_short() {
    let output =
        format!("====\n===== FAILURES =====\n___ t ___\nE   {}\n\na.py:1: Error\n", "x".repeat(10_000));
    let brief = FailureText::brief(output.as_bytes(), &[], BYTES_MAX);
    assert!(brief.text.len() < 200 && brief.text.ends_with('…'), "{}", brief.text);
}
