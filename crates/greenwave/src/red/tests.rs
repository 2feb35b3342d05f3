//! Outputs that real tools printed, and their classification by the rules.
//!
//! Each case in `outputs/` has the command, its exit code, the files of the project, and what is
//! expected: `red`, or a part of the reason why the test could not run.

use std::time::Duration;

use greenwave_testing::{ExitReason, Status};

use super::*;

const OUTPUTS: [&str; 5] = [
    include_str!("outputs/python.txt"),
    include_str!("outputs/rust.txt"),
    include_str!("outputs/node.txt"),
    include_str!("outputs/go.txt"),
    include_str!("outputs/tools.txt"),
];

struct Case {
    name: String,
    command: Vec<String>,
    status: Status,
    files: Vec<String>,
    expected: String,
    output: String,
}

impl Case {
    fn parse(text: &str) -> Self {
        let (head, output) = text.split_once("\n---\n").expect("a head and an output");
        let (name, head) = head.split_once('\n').expect("a name");
        let field = |key: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":"));
            line.unwrap_or_else(|| panic!("{name} has no {key}")).trim().to_owned()
        };
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        Self {
            name: name.to_owned(),
            command: words(field("command")),
            status: Status::Failed(ExitReason::Code(field("exit").parse().expect("an exit code"))),
            files: words(field("files")),
            expected: field("expect"),
            output: STYLE.replace_all(output, "").into_owned(),
        }
    }

    fn names(&self, text: &str) -> ProjectNames {
        let mut names = ProjectNames::new("/tmp/p", self.files.iter().map(String::as_str), text);
        if self.command.iter().any(|word| word == "go") {
            names.add_manifest("go.mod", "module example.com/m\n\ngo 1.19\n");
        }
        if self.command.iter().any(|word| word == "cargo") {
            names.add_manifest("Cargo.toml", "[package]\nname = \"calc\"\n");
        }
        names
    }

    fn failed(&self) -> FailedTest<'_> {
        FailedTest { command: &self.command, status: self.status, output: &self.output }
    }

    /// Returns `red` or the reason why the test could not run.
    fn verdict(&self, text: &str, red: Option<&str>) -> String {
        let found = obstacle(&self.failed(), &self.names(text), red);
        found.map_or_else(|| "red".to_owned(), |found| found.problem)
    }
}

fn cases() -> Vec<Case> {
    let texts = OUTPUTS.iter().flat_map(|all| all.split("#### ").filter(|text| text.contains("\n---\n")));
    texts.map(Case::parse).collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

#[test]
fn real_outputs_are_classified() {
    let cases = cases();
    assert!(cases.len() > 100, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let verdict = case.verdict("write the feature", None);
        let is_right =
            if case.expected == "red" { verdict == "red" } else { verdict.contains(&case.expected) };
        if !is_right {
            wrong.push(format!("{}: expected {:?}, found {verdict:?}", case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_obstacle_has_a_hint() {
    for case in cases() {
        if let Some(found) = obstacle(&case.failed(), &case.names(""), None) {
            assert!(found.hint.is_some_and(|hint| !hint.is_empty()), "{}", case.name);
        }
    }
}

#[test]
fn a_file_that_the_prompt_names_can_be_the_feature() {
    let missing = |name: &str, prompt: &str| case(name).verdict(prompt, None);
    // The prompt names the file, but the file is a test.
    assert_ne!(missing("py_missing_file", "make tests/test_typo.py pass"), "red");
    let program = Case {
        command: ["python3", "src/tool.py"].map(str::to_owned).to_vec(),
        output: "python3: can't open file '/tmp/p/src/tool.py': [Errno 2] No such file or directory"
            .to_owned(),
        ..case("py_missing_file")
    };
    assert_eq!(program.verdict("write src/tool.py", None), "red");
    assert_ne!(program.verdict("write the tool", None), "red");
    let script = Case {
        output: "sh: 1: ./build.sh: not found".to_owned(),
        command: ["sh", "-c", "./build.sh"].map(str::to_owned).to_vec(),
        ..case("sh_missing")
    };
    assert_eq!(script.verdict("write `build.sh`, which compiles everything", None), "red");
    assert_ne!(script.verdict("compile everything", None), "red");
}

#[test]
fn a_module_of_the_project_is_red_and_a_declared_one_is_not() {
    let third = case("pytest_own_import");
    let names = |manifest: &str, text: &str| {
        let mut names = third.names("");
        names.add_manifest(manifest, text);
        obstacle(&third.failed(), &names, None).map(|found| found.problem)
    };
    assert_eq!(names("requirements.txt", "numpy>=1\n"), None);
    assert!(names("requirements-dev.txt", "# tools\ncalc>=1\n").is_some());
    assert!(names("pyproject.toml", "[project]\ndependencies = [\"Calc >= 1\"]\n").is_some());
    assert!(names("pyproject.toml", "[dependency-groups]\ntest = [\"calc\"]\n").is_some());
    assert_eq!(names("pyproject.toml", "[project]\nname = \"calc\"\ndependencies = [\"calc\"]\n"), None);
    // A well-known package, unless the feature adds a file of that name.
    let third = case("py_third_party");
    assert_ne!(third.verdict("add two arrays with numpy", None), "red");
    assert_eq!(third.verdict("write src/numpy.py", None), "red");
}

#[test]
fn packages_of_the_project_are_red() {
    let bare = case("node_bare");
    let mut names = bare.names("");
    names.add_manifest("packages/pad/package.json", "{\"name\": \"left-pad\"}");
    assert_eq!(obstacle(&bare.failed(), &names, None), None);
    let rust = case("cargo_e0432_crate");
    assert_eq!(rust.verdict("add serde_json as a dependency", None), "red");
    let mut names = rust.names("");
    names.add_manifest("crates/json/Cargo.toml", "[package]\nname = \"serde-json\"\n");
    assert_eq!(obstacle(&rust.failed(), &names, None), None);
}

#[test]
fn a_test_that_was_killed_is_not_red() {
    let killed = |status, output: &str| {
        let case = Case { status, output: output.to_owned(), ..case("sh_false") };
        (case.verdict("", None), case.verdict("", Some("src")))
    };
    let signal = |signal| Status::Failed(ExitReason::Signal(signal));
    let (by_rules, by_red) = killed(signal(9), "src");
    assert_eq!((by_rules.as_str(), by_red.as_str()), ("was ended by signal 9", "was ended by signal 9"));
    assert_eq!(killed(signal(6), "t: t.c:2: main: Assertion `x' failed.").0, "red");
    assert_eq!(killed(signal(11), "").0, "was ended by signal 11");
    assert_eq!(killed(Status::Failed(ExitReason::Code(137)), "").0, "was ended by signal 9");
    assert_eq!(killed(Status::Failed(ExitReason::Code(200)), "").0, "red");
    let (timed_out, _) = killed(Status::TimedOut(Duration::from_secs(1)), "src");
    assert_eq!(timed_out, "did not end within 1s and was killed");
}

#[test]
fn an_expression_of_the_feature_narrows_and_overrides() {
    let failed = case("pytest_assert");
    assert_eq!(failed.verdict("", Some("assert 1 == 2")), "red");
    assert_eq!(
        failed.verdict("", Some("NotImplementedError")),
        "failed, and its output does not match `red` (NotImplementedError)"
    );
    let third = case("pytest_third_import");
    assert_eq!(third.verdict("", Some("No module named 'requests'")), "red");
    assert_ne!(third.verdict("", Some("No module named 'other'")), "red");
}

#[test]
fn a_full_disk_is_not_red() {
    for output in [
        "OSError: [Errno 28] No space left on device",
        "error: failed to write x: No space left on device (os error 28)",
        "Error: ENOSPC: no space left on device, write",
    ] {
        let full = Case { output: output.to_owned(), ..case("sh_false") };
        assert_eq!(full.verdict("", None), "cannot run: no space is left on the disk");
    }
}

#[test]
fn port_conflicts_are_recognised() {
    for name in ["py_port", "pytest_port", "node_port"] {
        assert!(has_port_conflict(&case(name).output), "{name}");
    }
    for output in [
        "listen tcp 127.0.0.1:80: bind: address already in use",
        "Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }",
        "java.net.BindException: Address already in use",
    ] {
        assert!(has_port_conflict(output), "{output}");
    }
    assert!(!has_port_conflict("the address is in use by nobody"));
}

#[test]
fn arbitrary_output_does_not_panic() {
    // Pieces of real outputs, cut anywhere, with a command of another tool.
    let cases = cases();
    for (at, case) in cases.iter().enumerate() {
        let other = &cases[(at * 7 + 3) % cases.len()];
        for cut in (0..case.output.len()).step_by(37).filter(|cut| case.output.is_char_boundary(*cut)) {
            let failed =
                FailedTest { command: &other.command, status: case.status, output: &case.output[cut..] };
            let _ = obstacle(&failed, &other.names("x"), Some("x"));
        }
    }
}
