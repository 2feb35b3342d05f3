//! Features whose tests an agent writes before another one writes the code.

use std::fs;

use greenwave_testkit::http::{HttpRequest, HttpResponse, HttpServer};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::go_verdicts::has_go;
use crate::harnesses::{program, python};
use crate::program::{COMPILING_BOUND, Finished, Program};
use crate::shell_plan::Report;
use crate::test_dir::TestDir;

const TEST: &str = "#[test]\nfn sums() { assert_eq!(tiny::add(1, 2), 3); }\n";
const CODE: &str = "pub fn add(a: u32, b: u32) -> u32 { a + b }\n";

/// Returns a directory with a package of Rust without tests, and a plan with these agents and one
/// feature without tests.
fn directory(agents: &str, feature: &str) -> TestDir {
    let plan = format!(
        "project = \"project\"\nconfine = \"off\"\nguards = \"off\"\n{agents}\n[[features]]\nid = \"add\"\n\
         title = \"Sums\"\nprompt = \"Write `tiny::add`, which adds numbers.\"\nagent = \"coder\"\n\
         test_agent = \"tester\"\n{feature}\n"
    );
    TestDir::empty()
        .with("plan.toml", plan)
        .with("project/Cargo.toml", "[package]\nname = \"tiny\"\nedition = \"2021\"\n")
        .with("project/Cargo.lock", "version = 3\n[[package]]\nname = \"tiny\"\nversion = \"0.0.0\"\n")
        .with("project/.gitignore", "target\n")
        .with("project/src/lib.rs", "")
}

/// Returns an agent that is a line of shell. It notes its requests, and keeps its prompts.
fn shell(name: &str, script: &str) -> String {
    format!(
        "[agents.{name}]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", '''\
         cat > $ROOT/{name}-$GREENWAVE_ATTEMPT; echo {name} $GREENWAVE_ATTEMPT >> $ROOT/requests\n{script}''']\n"
    )
}

/// Returns agents whose first answers are good.
fn good_agents() -> String {
    let tester = shell("tester", &format!("mkdir -p tests; cat > tests/add.rs <<'E'\n{TEST}E"));
    format!("{tester}{}", shell("coder", &format!("cat > src/lib.rs <<'E'\n{CODE}E")))
}

fn run(dir: &TestDir) -> Program {
    run_with(dir, &["--no-metrics"])
}

fn run_with(dir: &TestDir, options: &[&str]) -> Program {
    let root = dir.path("").display().to_string();
    let args = ["run", "plan.toml", "--format", "json"].into_iter().chain(options.iter().copied());
    dir.greenwave(args).within(&dir.path("")).variable("ROOT", &root).bound(COMPILING_BOUND)
}

fn requests(dir: &TestDir) -> Vec<String> {
    let requests = fs::read_to_string(dir.path("requests")).unwrap_or_default();
    requests.lines().map(str::to_owned).collect()
}

fn events(finished: &Finished, name: &str) -> Vec<Value> {
    finished.events().into_iter().filter(|event| event["event"] == name).collect()
}

/// Returns the outcomes and the changed files of the stored attempts.
fn attempts(dir: &TestDir) -> Vec<(String, String)> {
    let listed = dir.greenwave(["attempts", "plan.toml", "add", "--format", "json"]).within(&dir.path(""));
    let paths = |attempt: &Value| {
        let files = attempt["files"].as_array().unwrap().iter();
        files.map(|file| file["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let listed = listed.run().with_code(0).events();
    listed.iter().map(|it| (it["outcome"].as_str().unwrap().to_owned(), paths(it))).collect()
}

fn chat(text: &str) -> HttpResponse {
    let data = [
        json!({ "choices": [{ "delta": { "content": text }, "finish_reason": "stop" }] }).to_string(),
        json!({ "choices": [], "usage": { "prompt_tokens": 1000, "completion_tokens": 100 } }).to_string(),
        "[DONE]".to_owned(),
    ];
    HttpResponse::events(data).in_chunks_of(30)
}

fn file(path: &str, text: &str) -> String {
    format!("Here it is.\n\n```rust {path}\n{text}```\n\n")
}

fn prompt_of(request: &HttpRequest) -> String {
    let body = request.json();
    let messages = body["messages"].as_array().unwrap();
    messages.iter().filter_map(|message| message["content"].as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_model_writes_the_tests_and_another_one_the_code() {
    let passing = TEST.replace("assert_eq!(tiny::add(1, 2), 3)", "assert!(true)");
    let tester = HttpServer::start(move |_, number| {
        chat(&match number {
            0 => format!("{}{}", file("tests/add.rs", TEST), file("src/lib.rs", CODE)),
            1 => file("tests/add.rs", &passing),
            2 => file("tests/add.rs", "fn sums( {\n"),
            _ => file("tests/add.rs", TEST),
        })
    });
    let coder = HttpServer::start(|_, number| {
        chat(&match number {
            0 => format!("{}{}", file("tests/add.rs", "#[test]\nfn sums() {}\n"), file("src/lib.rs", CODE)),
            _ => file("src/lib.rs", CODE),
        })
    });
    let agent = |name: &str, server: &HttpServer| {
        format!(
            "[agents.{name}]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{}/v1\"\ncontext = [\"src/**\"]\n\
             prices = {{ input = 10, output = 100 }}\n",
            server.url()
        )
    };
    let agents = format!("{}{}", agent("tester", &tester), agent("coder", &coder));
    let dir = directory(&agents, "attempts = 4");
    let finished = run(&dir).run().with_code(0);
    assert_eq!(dir.read("project/tests/add.rs"), TEST);
    assert_eq!(dir.read("project/src/lib.rs"), CODE);
    let report = Report::of(&finished);
    let reasons = report.rejections("add");
    assert_eq!(reasons[0], "`src/lib.rs` is no file of tests: the agent may not change it");
    assert!(reasons[1].ends_with("passes before the feature exists, so it proves nothing"), "{reasons:?}");
    assert!(reasons[2].ends_with("cannot run: `tests/add.rs` has a syntax error"), "{reasons:?}");
    assert_eq!(reasons[3..], ["`tests/add.rs` belongs to the tests: the agent may not change it"]);
    // The attempts at the tests and at the code are counted together, and so are their costs.
    let feature = report.feature("add");
    assert_eq!((&feature["attempts"], &feature["usage"]["cost_usd"]), (&json!(6), &json!(0.12)));
    let written = &events(&finished, "tests_written")[0];
    assert_eq!(
        (&written["agent"], &written["files"], &written["attempt"]),
        (&json!("tester"), &json!(["tests/add.rs"]), &json!(4))
    );
    let phases: Vec<Value> = events(&finished, "phase").iter().map(|event| event["phase"].clone()).collect();
    assert_eq!(phases[..2], ["tests", "red"]);

    let prompts: Vec<String> = tester.requests().iter().map(prompt_of).collect();
    assert!(prompts[0].contains("Write `tiny::add`, which adds numbers."), "{}", prompts[0]);
    assert!(
        prompts[0].contains("```text src/lib.rs\n") || prompts[0].contains("src/lib.rs"),
        "{}",
        prompts[0]
    );
    assert!(prompts[1].contains("This is attempt 2 of 4. The last one was refused:"), "{}", prompts[1]);
    assert!(prompts[2].contains("passes before the feature exists"), "{}", prompts[2]);
    let prompts: Vec<String> = coder.requests().iter().map(prompt_of).collect();
    assert_eq!(prompts.len(), 2);
    assert!(prompts[0].contains("The tests of this are in `tests/add.rs`. You may not change them."));
    assert!(prompts[0].contains("Before anything is written, the tests fail like this:"), "{}", prompts[0]);
    assert!(prompts[0].contains("cannot find function `add`"), "{}", prompts[0]);

    let stored = attempts(&dir);
    let stored: Vec<(&str, &str)> = stored.iter().map(|(outcome, files)| (&**outcome, &**files)).collect();
    let tests = |outcome| (outcome, "tests/add.rs");
    assert_eq!(stored, [tests("failed"), tests("failed"), tests("red"), ("passed", "src/lib.rs")]);

    // The next run has the tests, and asks nobody.
    let again = run(&dir).run().with_code(0);
    assert_eq!(Report::of(&again).feature("add")["up_to_date"], json!(true));
    assert_eq!((tester.requests().len(), coder.requests().len()), (4, 2));
}

#[test]
fn a_killed_run_asks_for_no_tests_twice() {
    for moment in
        [r#""phase":"tests""#, r#""event":"tests_written""#, r#""phase":"yellow""#, r#""phase":"merging""#]
    {
        let dir = directory(&good_agents(), "");
        let mut running = run(&dir).start();
        let found = std::iter::from_fn(|| running.line()).any(|line| line.contains(moment));
        assert!(found, "the run has no event with {moment}");
        running.signal(Signal::KILL);
        running.wait();
        let finished = run(&dir).run().with_code(0);
        assert_eq!(Report::of(&finished).phases(), [("add", "green")], "{moment}");
        assert_eq!(dir.read("project/tests/add.rs"), TEST, "{moment}");
        let requests = requests(&dir);
        let count = |agent: &str| requests.iter().filter(|line| line.starts_with(agent)).count();
        if !moment.contains("\"tests\"") {
            assert_eq!(count("tester"), 1, "{moment}: {requests:?}");
        }
        if moment.contains("merging") {
            assert_eq!(count("coder"), 1, "{moment}: {requests:?}");
        }
        // A number is that of one attempt.
        let mut unique = requests.clone();
        unique.dedup();
        assert_eq!(unique, ["tester 1", "coder 2"], "{moment}: {requests:?}");
    }
}

#[test]
fn another_copy_of_the_project_has_the_tests_of_a_green_feature() {
    let dir = directory(&good_agents(), "");
    run(&dir).run().with_code(0);
    fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    let finished = run(&dir).run().with_code(0);
    assert_eq!(events(&finished, "adopted").len(), 1);
    assert_eq!(requests(&dir), ["tester 1", "coder 2"]);
    // A new prompt means other tests.
    let plan = dir.read("plan.toml").replace("which adds numbers", "which adds large numbers");
    dir.write("plan.toml", plan);
    let finished = run_with(&dir, &["--no-metrics", "--check=red"]).run().with_code(2);
    let reason = "its tests are not written yet: agent `tester` writes them in a run";
    assert_eq!(Report::of(&finished).reason("add"), reason);
}

#[test]
fn candidates_and_reviews_work_on_written_tests() {
    let critic = shell("critic", "echo APPROVE");
    let agents = format!("{}{critic}", good_agents());
    let dir = directory(&agents, "candidates = 2\nreview = { agent = \"critic\" }");
    let finished = run(&dir).run().with_code(0);
    assert_eq!(events(&finished, "chosen").len(), 1);
    let mut requests = requests(&dir);
    requests.sort_unstable();
    assert_eq!(requests, ["coder 2", "coder 2", "critic 2", "tester 1"]);
    // The reviewer sees the tests, because they are merged with the code.
    let review = dir.read("critic-2");
    assert!(review.contains("+++ b/tests/add.rs") && review.contains("+++ b/src/lib.rs"), "{review}");
    assert_eq!(dir.read("project/tests/add.rs"), TEST);
}

#[test]
fn attempts_at_tests_are_bounded_and_limits_of_providers_cost_none() {
    let limited = "if ! test -e $ROOT/limited; then touch $ROOT/limited; \
                   echo 'HTTP 429, retry-after: 0.1' >&2; exit 75; fi; echo $GREENWAVE_ATTEMPT > tests.txt";
    let agents = format!("{}{}", shell("tester", limited), shell("coder", "true"));
    let dir = directory(&agents, "attempts = 2");
    let finished = run(&dir).run().with_code(1);
    let report = Report::of(&finished);
    assert_eq!(requests(&dir), ["tester 1", "tester 1", "tester 2"]);
    assert_eq!(report.count("waiting"), 1);
    assert!(report.reason("add").contains("`tests.txt` is no file of tests"), "{}", report.reason("add"));
    assert_eq!(report.phases(), [("add", "failed")]);
    // The next run begins a new round with the same agent.
    run(&dir).run().with_code(1);
    assert_eq!(requests(&dir)[3..], ["tester 3", "tester 4"]);
}

#[test]
fn tests_that_no_harness_finds_are_refused() {
    let script = "if test $GREENWAVE_ATTEMPT = 1; then mkdir -p src/sums; echo '#[test] fn a() {}' > src/sums/tests.rs
        elif test $GREENWAVE_ATTEMPT = 2; then rm -r src/sums; mkdir tests; echo data > tests/data.txt
        else rm tests/data.txt; cat > tests/add.rs <<'E'\n#[test]\nfn sums() { assert_eq!(tiny::add(1, 2), 3); }\nE\nfi";
    let coder = shell("coder", &format!("cat > src/lib.rs <<'E'\n{CODE}E"));
    let dir = directory(&format!("{}{coder}", shell("tester", script)), "");
    let finished = run(&dir).run().with_code(0);
    assert_eq!(
        Report::of(&finished).rejections("add"),
        [
            "`src/sums/tests.rs` is no test that the project's test runner finds",
            "no test runner of the project finds a test in what was written"
        ]
    );
    assert!(!dir.path("project/tests/data.txt").exists() && !dir.path("project/src/sums").exists());
}

#[test]
fn a_budget_covers_the_tests() {
    let usage = json!({"type": "result", "subtype": "success", "is_error": false, "result": "done",
        "total_cost_usd": 0.4, "usage": {"input_tokens": 10, "output_tokens": 5}});
    let tester =
        shell("tester", &format!("mkdir -p tests; cat > tests/add.rs <<'E'\n{TEST}E\necho '{usage}'"));
    let tester = tester.replace("\"command\"", "\"claude\"");
    let dir = directory(&format!("{tester}{}", shell("coder", "true")), "");
    let plan =
        dir.read("plan.toml").replace("[agents.tester]", "[budget]\nfeature_usd = 0.3\n[agents.tester]");
    dir.write("plan.toml", plan);
    let finished = run(&dir).run().with_code(1);
    let report = Report::of(&finished);
    assert!(report.reason("add").starts_with("budget reached: "), "{}", report.reason("add"));
    assert_eq!(report.feature("add")["usage"]["cost_usd"], json!(0.4));
    assert_eq!(requests(&dir), ["tester 1"]);
}

#[test]
fn a_check_shows_who_writes_the_tests() {
    let check = |dir: &TestDir| dir.greenwave(["run", "--check", "plan.toml"]).within(&dir.path("")).run();
    let dir = directory(&good_agents(), "");
    let checked = check(&dir).with_code(0);
    let line = "add has no tests yet: `tester` writes them, then `coder` writes the code";
    assert!(checked.stdout.contains(line), "{}", checked.describe());
    for (own, problem) in [
        ("test_agent = \"testers\"", "unknown agent `testers`"),
        ("test_agent = \"coder\"", "expected another agent than those that write the code"),
        (
            "test_agent = \"tester\"\ncandidates = [\"coder\", \"tester\"]",
            "expected another agent than those",
        ),
        ("", "at least one test, which shows that the feature is done, or a `test_agent`"),
    ] {
        let plan = dir.read("plan.toml").replace("test_agent = \"tester\"", own);
        let dir = directory("", "").with("plan.toml", plan);
        let refused = check(&dir).with_code(2);
        assert!(refused.stderr.contains(problem), "{own}: {}", refused.describe());
    }
    let same = "test_agent = { agent = \"coder\", may_write_code = true }";
    let plan = dir.read("plan.toml").replace("test_agent = \"tester\"", same);
    check(&dir.with("plan.toml", plan)).with_code(0);
}

/// A project of a language, with the files that the agents write.
struct Language {
    /// Files of the project. The last one is the code, which is empty of the feature.
    project: &'static [(&'static str, &'static str)],
    /// Tests that pass without the feature, tests that cannot run, and good tests.
    tests: [&'static str; 3],
    test_file: &'static str,
    code: &'static str,
}

/// Has an agent write tests in a language: the first ones pass at once, the second ones cannot run,
/// and the third ones fail as they should. Then another agent writes the code.
#[track_caller]
fn check_language(language: &Language) {
    let Language { project, tests, test_file, code } = language;
    let (code_file, _) = project.last().expect("a project has code");
    let mut cases = String::new();
    for (attempt, text) in (1..).zip(tests) {
        let write = format!("mkdir -p $(dirname {test_file}); cat > {test_file} <<'E'\n{text}E\n");
        cases.push_str(&format!("if test $GREENWAVE_ATTEMPT = {attempt}; then {write}fi\n"));
    }
    let agents = format!(
        "{}{}",
        shell("tester", &cases),
        shell("coder", &format!("cat > {code_file} <<'E'\n{code}E"))
    );
    let plan = format!(
        "project = \"project\"\nconfine = \"off\"\nguards = \"off\"\n{agents}\n[[features]]\nid = \"add\"\n\
         prompt = \"Write add, which adds numbers.\"\nagent = \"coder\"\ntest_agent = \"tester\"\nattempts = 4\n"
    );
    let mut dir = TestDir::empty().with("plan.toml", plan).with("home/x", "");
    for (path, text) in *project {
        dir = dir.with(&format!("project/{path}"), text);
    }
    let home = dir.path("home").display().to_string();
    let finished = run(&dir).variable("HOME", &home).run().with_code(0);
    let report = Report::of(&finished);
    let reasons = report.rejections("add");
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("passes before the feature exists"), "{reasons:?}");
    assert!(reasons[1].contains("cannot run"), "{reasons:?}");
    assert_eq!(events(&finished, "tests_written")[0]["files"], json!([test_file]));
    assert_eq!(requests(&dir), ["tester 1", "tester 2", "tester 3", "coder 4"]);
    assert_eq!(dir.read(&format!("project/{test_file}")), tests[2]);
    assert_eq!(dir.read(&format!("project/{code_file}")), *code);
}

#[test]
fn a_model_writes_tests_for_pytest() {
    if python().is_none() {
        return;
    }
    check_language(&Language {
        project: &[("pytest.ini", "[pytest]\n"), ("tiny.py", "def none():\n    pass\n")],
        tests: [
            "def test_add():\n    assert True\n",
            "def test_add(:\n",
            "import tiny\n\n\ndef test_add():\n    assert tiny.add(1, 2) == 3\n",
        ],
        test_file: "tests/test_add.py",
        code: "def add(a, b):\n    return a + b\n",
    });
}

#[test]
fn a_model_writes_tests_for_go() {
    if !has_go() {
        return;
    }
    check_language(&Language {
        project: &[("go.mod", "module example.test/tiny\n\ngo 1.19\n"), ("tiny.go", "package tiny\n")],
        tests: [
            "package tiny\n\nimport \"testing\"\n\nfunc TestAdd(t *testing.T) {}\n",
            "package tiny\n\nfunc TestAdd( {\n",
            "package tiny\n\nimport \"testing\"\n\nfunc TestAdd(t *testing.T) {\n\tif Add(1, 2) != 3 {\n\t\tt.Fatal(\"no sum\")\n\t}\n}\n",
        ],
        test_file: "tiny_test.go",
        code: "package tiny\n\nfunc Add(a, b int) int { return a + b }\n",
    });
}

#[test]
fn a_model_writes_tests_for_npm() {
    if program(&[&["npm", "--version"]]).is_none() {
        return;
    }
    check_language(&Language {
        project: &[
            ("package.json", r#"{"name":"tiny","private":true,"scripts":{"test":"node --test"}}"#),
            (".gitignore", "node_modules\n"),
            ("tiny.js", "exports.none = 1;\n"),
        ],
        tests: [
            "require('node:test')('add', () => {});\n",
            "require('node:test')('add', ( => {});\n",
            "const assert = require('node:assert');\nconst tiny = require('../tiny');\n\nrequire('node:test')('add', () => assert.equal(tiny.add(1, 2), 3));\n",
        ],
        test_file: "test/add.test.js",
        code: "exports.add = (a, b) => a + b;\n",
    });
}
