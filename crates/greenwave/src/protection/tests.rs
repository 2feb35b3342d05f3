//! Changes of attempts, and whether they are the agent's to make.

use super::*;

/// A feature whose test has this command, and that this prompt describes.
fn feature(prompt: &str, command: &[&str]) -> Feature {
    Feature {
        prompt: prompt.to_owned(),
        tests: vec![Test::new("test", command.iter().copied())],
        ..Feature::default()
    }
}

/// The protection of a run whose plan has these patterns.
fn protecting(protect: &[&str]) -> RunProtection {
    let protect = protect.iter().map(|pattern| (*pattern).to_owned()).collect();
    let project = tempfile::tempdir().unwrap();
    RunProtection::new(&Plan { protect, ..Plan::default() }, &ProjectRoot::of(project.path()).unwrap())
}

fn verdict(feature: &Feature, path: &str, before: Option<&str>, after: Option<&str>) -> Option<String> {
    let run = protecting(&[]);
    let protection = Protection::new(feature, &feature.tests, &run);
    let change = FileChange { path, before: before.map(str::as_bytes), after: after.map(str::as_bytes) };
    protection.violation(&change)
}

#[test]
fn tests_and_their_settings_may_not_change() {
    let feature = feature("Write add.", &["python3", "-m", "pytest", "tests/test_add.py"]);
    let existing = [
        "tests/test_add.py",
        "tests/helpers/data.json",
        "tests/conftest.py",
        "src/add_test.go",
        "web/button.spec.tsx",
        "pytest.ini",
        "jest.config.ts",
        ".cargo/config.toml",
        "src/parser/tests.rs",
    ];
    for path in existing {
        for after in [Some("new"), None] {
            assert!(verdict(&feature, path, Some("old"), after).is_some(), "{path} {after:?}");
        }
    }
    // New files that would change how the given tests run, or that the command names.
    for path in
        ["conftest.py", "tests/conftest.py", "sitecustomize.py", "pytest.ini", "tests/test_add.py", ".npmrc"]
    {
        assert!(verdict(&feature, path, None, Some("new")).is_some(), "{path}");
    }
    for path in ["src/add.py", "README.md", "docs/contest.md"] {
        assert_eq!(verdict(&feature, path, Some("old"), Some("new")), None, "{path}");
    }
    for path in ["tests/test_more.py", "src/add.test.js", "src/add.py"] {
        assert_eq!(verdict(&feature, path, None, Some("new")), None, "{path}");
    }
}

#[test]
fn a_new_file_may_not_take_over_the_tests_of_a_go_package() {
    let feature = feature("Write Add.", &["go", "test", "./..."]);
    let main = "package m\nfunc TestMain(m *testing.M) { os.Exit(0) }\n";
    assert!(verdict(&feature, "main_test.go", None, Some(main)).is_some());
    assert_eq!(verdict(&feature, "more_test.go", None, Some("package m\n")), None);
}

#[test]
fn scripts_that_commands_run_may_not_change() {
    let changed = |prompt: &str, command: &[&str], path: &str| {
        verdict(&feature(prompt, command), path, Some("old"), Some("new")).is_some()
    };
    assert!(changed("Write add.", &["python3", "t.py", "src/f1"], "t.py"));
    assert!(changed("Make check.sh pass.", &["./check.sh"], "check.sh"));
    assert!(changed("Write add.", &["bash", "-e", "scripts/run.sh"], "scripts/run.sh"));
    assert!(changed("Write add.", &["sh", "-c", "cd . && python3 'run all.py' | tee log"], "run all.py"));
    assert!(changed("Write add.", &["env", "A=1", "node", "smoke.mjs"], "smoke.mjs"));
    // The program under test, which the prompt names, and files that programs only read.
    assert!(!changed("Extend src/tool.py.", &["python3", "src/tool.py", "--selftest"], "src/tool.py"));
    assert!(changed("Extend the tool.", &["python3", "src/tool.py", "--selftest"], "src/tool.py"));
    assert!(!changed("Write add.", &["grep", "-q", "add", "src/lib.rs"], "src/lib.rs"));
    assert!(!changed("Write add.", &["test", "-f", "src/add"], "src/add"));
    assert!(!changed("Write add.", &["python3", "t.py", "src/f1"], "src/f1"));
}

#[test]
fn tasks_that_commands_run_may_not_change() {
    let changed = |prompt: &str, command: &[&str], path: &str| {
        verdict(&feature(prompt, command), path, Some("old"), Some("new")).is_some()
    };
    assert!(changed("Write add.", &["rake", "test"], "Rakefile"));
    assert!(changed("Write add.", &["sh", "-c", "cd . && task test"], "Taskfile.yml"));
    assert!(!changed("Add a task to the Rakefile.", &["rake", "lint"], "Rakefile"));
    assert!(!changed("Write add.", &["true"], "Rakefile"));
}

#[test]
fn a_new_file_may_not_take_the_place_of_a_runner() {
    let feature = feature("Write add.", &["python3", "-m", "pytest", "tests"]);
    for path in ["pytest.py", "pytest/__init__.py", "src/unittest/__init__.py", "_pytest/__init__.py"] {
        assert!(verdict(&feature, path, None, Some("new")).is_some(), "{path}");
    }
    for path in ["src/pytest_more.py", "docs/pytest/index.md", "tests/pytest/test_a.py"] {
        assert_eq!(verdict(&feature, path, None, Some("new")), None, "{path}");
    }
}

#[test]
fn a_script_that_does_not_exist_may_be_written_unless_it_is_a_test() {
    let added = |command: &[&str], path: &str| {
        verdict(&feature("Write it.", command), path, None, Some("new")).is_some()
    };
    assert!(!added(&["sh", "-c", "./build.sh"], "build.sh"));
    assert!(added(&["sh", "-c", "./check.sh"], "check.sh"));
    assert!(added(&["python3", "tests/test_new.py"], "tests/test_new.py"));
}

#[test]
fn the_directory_of_a_test_counts() {
    let mut feature = feature("Write it.", &["python3", "../smoke.py"]);
    feature.tests[0].directory = "app/run".into();
    assert!(verdict(&feature, "app/smoke.py", Some("a"), Some("b")).is_some());
    assert_eq!(verdict(&feature, "smoke.py", Some("a"), Some("b")), None);
}

#[test]
fn patterns_of_the_plan_add_and_remove_protection() {
    let mut feature = feature("Write add.", &["pytest"]);
    let run = protecting(&["/schema/**"]);
    let change = |path| FileChange { path, before: Some(b"a"), after: Some(b"b") };
    let refused = |feature: &Feature, path| {
        Protection::new(feature, &feature.tests, &run).violation(&change(path)).is_some()
    };
    assert!(refused(&feature, "schema/a.sql") && refused(&feature, "tests/test_a.py"));
    assert!(!refused(&feature, "src/schema/a.sql"));
    feature.may_edit = vec!["tests/**".to_owned(), "!tests/conftest.py".to_owned()];
    assert!(refused(&feature, "schema/a.sql") && !refused(&feature, "tests/test_a.py"));
    assert!(refused(&feature, "tests/conftest.py"));
    feature.may_edit = vec!["*".to_owned()];
    assert!(!refused(&feature, "schema/a.sql"));
}

#[test]
fn files_that_programs_run_or_trust_may_not_change() {
    let feature = feature("Write add.", &["pytest"]);
    for path in [
        ".gitattributes",
        ".gitmodules",
        ".gitignore",
        "sub/.gitignore",
        ".github/workflows/ci.yml",
        ".GitHub/workflows/ci.yml",
        ".github",
        ".gitlab-ci.yml",
        ".circleci/config.yml",
        "Jenkinsfile",
        ".vscode/tasks.json",
        "web/.vscode/settings.json",
        ".idea/runConfigurations/a.xml",
        ".devcontainer/devcontainer.json",
        ".envrc",
        ".husky/pre-commit",
        "scripts/pre-commit",
        ".pre-commit-config.yaml",
        "lefthook.yml",
        "build.rs",
        "crates/a/build.rs",
        ".cargo/config",
        ".cargo/audit.toml",
        "conftest.py",
        "setup.py",
        "site/evil.pth",
        "pip.conf",
        ".npmrc",
        ".yarnrc.yml",
        ".yarn/releases/yarn.cjs",
        ".pnpmfile.cjs",
        ".pnp.cjs",
        "rust-toolchain.toml",
        ".tool-versions",
        ".mise.toml",
        "greenwave.toml",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".claude/x.json",
    ] {
        for (before, after) in [(None, Some("new")), (Some("old"), Some("new")), (Some("old"), None)] {
            assert!(verdict(&feature, path, before, after).is_some(), "{path} {before:?} {after:?}");
        }
    }
    for path in [
        "src/.gitkeep",
        "src/hooks/use.ts",
        "src/build.rs.txt",
        "github/a",
        "mise/a",
        "src/git.rs",
        "src/eslint.ts",
    ] {
        assert_eq!(verdict(&feature, path, None, Some("new")), None, "{path}");
    }
}

#[test]
fn files_that_toplevels_and_checkers_of_editors_run_may_not_change() {
    let feature = feature("Write add.", &["pytest"]);
    for path in [
        ".ghci",
        "lib/.ocamlinit",
        ".octaverc",
        "jupyter_server_config.py",
        "rust-analyzer.toml",
        "web/.eslintrc.cjs",
        "eslint.config.mjs",
        ".prettierrc.js",
        "prettier.config.ts",
        ".stylelintrc.json",
        ".rubocop.yml",
        ".flake8",
    ] {
        assert!(verdict(&feature, path, None, Some("new")).is_some(), "{path}");
    }
}

#[test]
fn a_plan_changes_the_list_of_trusted_files() {
    let feature = feature("Write add.", &["pytest"]);
    let refused = |protect: &[&str], path| {
        let change = FileChange { path, before: None, after: Some(b"new") };
        Protection::new(&feature, &feature.tests, &protecting(protect)).violation(&change)
    };
    assert!(refused(&["!.github"], ".github/ci.yml").is_none());
    assert!(refused(&["!.github"], ".envrc").is_some());
    assert!(refused(&["!*"], "build.rs").is_none());
    let reason = refused(&["!*", "/ops/**"], "ops/deploy").expect("the plan protects it");
    assert_eq!(reason, "is protected by the plan (`protect`)");
    assert!(refused(&[".github", "!.github/docs"], ".github/docs/a.md").is_none());
}

#[test]
fn the_plan_and_its_programs_may_not_change() {
    let project = tempfile::tempdir().unwrap();
    let root = ProjectRoot::of(project.path()).unwrap();
    for name in ["plan.toml", "answers.jsonl"] {
        std::fs::write(project.path().join(name), "").unwrap();
    }
    let agent = crate::plan::CommandSpec {
        command: ["sh", "tools/agent.sh", "src/lib.rs"].map(str::to_owned).into(),
        ..Default::default()
    };
    let plan = Plan {
        file: Some(project.path().join("plan.toml")),
        setup: vec![vec!["./setup.sh".to_owned()]],
        agents: [
            ("a".to_owned(), AgentSpec::Command(agent)),
            ("s".to_owned(), AgentSpec::Scripted { script: project.path().join("answers.jsonl"), pace: 1.0 }),
        ]
        .into(),
        ..Plan::default()
    };
    let feature = feature("Write add.", &["pytest"]);
    let run = RunProtection::new(&plan, &root);
    let protection = Protection::new(&feature, &feature.tests, &run);
    let violation = |path| protection.violation(&FileChange { path, before: Some(b"a"), after: None });
    assert_eq!(violation("plan.toml").as_deref(), Some("is part of the plan"));
    assert_eq!(violation("answers.jsonl").as_deref(), Some("is part of the plan"));
    assert_eq!(violation("setup.sh").as_deref(), Some("is run by the plan"));
    assert_eq!(violation("tools/agent.sh").as_deref(), Some("is run by the plan"));
    assert_eq!(violation("src/lib.rs"), None);
}

#[track_caller]
fn manifest(path: &str, before: &str, after: &str, refused: bool) {
    let feature = feature("Write add.", &["make", "test"]);
    let found = verdict(&feature, path, Some(before), Some(after));
    assert_eq!(found.is_some(), refused, "{path}: {found:?}\n{after}");
}

#[test]
fn rules_of_makefiles_that_run_tests_may_not_change() {
    let make = "CC = gcc\ntest: build\n\t./t\nbuild:\n\t$(CC) t.c\nother:\n\ttrue\n";
    manifest("Makefile", make, &make.replace("./t\n", "true\n"), true);
    manifest("Makefile", make, &make.replace("t.c", "x.c"), true);
    manifest("Makefile", make, &make.replace("true", "false"), false);
    // `make` prefers these to `Makefile`.
    manifest("GNUmakefile", "", "test:\n\t@true\n", true);
    manifest("makefile", "", "test:\n\t@true\n", true);
    manifest("makefile", "", "other:\n\t@true\n", false);
    manifest("makefile", "", "SHELL = /bin/true\ninclude Makefile\n", true);
    manifest("Makefile", "", "test:\n\t./t\n", false);
    for (line, is_refused) in [
        ("MAKEFLAGS = -n", true),
        ("MAKEFLAGS += -i", true),
        ("export SHELL := /bin/true", true),
        ("%: .SHELLFLAGS = -n", true),
        ("test: SHELL = /bin/true", true),
        (".IGNORE:", true),
        ("-include own.mk", true),
        ("$(eval SHELL := /bin/true)", true),
        ("define MAKE\nendef", true),
        ("test:\n\t@true", true),
        ("CC = true", true),
        ("CFLAGS = -O2", false),
        ("SHELLCHECK = on", false),
        ("more:\n\techo SHELL = x", false),
    ] {
        manifest("Makefile", make, &format!("{line}\n{make}"), is_refused);
        manifest("Makefile", make, &format!("{make}{line}\n"), is_refused);
    }
}

#[test]
fn lines_of_build_files_that_switch_tests_off_are_refused() {
    let pom = "<project>\n<artifactId>maven-surefire-plugin</artifactId>\n</project>\n";
    manifest("pom.xml", pom, &pom.replace("</project>", "<skipTests>true</skipTests>\n</project>"), true);
    manifest("pom.xml", pom, &pom.replace("maven-surefire", "other"), true);
    manifest("pom.xml", pom, &pom.replace("</project>", "<dependency/>\n</project>"), false);
    let gradle = "dependencies {\n}\ntest {\n  useJUnitPlatform()\n}\n";
    for (name, line) in [
        ("app/build.gradle", "enabled = false"),
        ("build.gradle.kts", "ignoreFailures = true"),
        ("build.gradle", "exclude '**/*Test*'"),
    ] {
        manifest(name, gradle, &gradle.replace("}\ntest {", &format!("}}\ntest {{\n{line}")), true);
    }
    manifest("build.gradle", gradle, &gradle.replace("useJUnitPlatform()", ""), true);
    let exclude = "dependencies {\n  implementation('x') { exclude group: 'y' }";
    manifest("build.gradle", gradle, &gradle.replace("dependencies {", exclude), false);
    let cmake = "enable_testing()\nadd_test(NAME t COMMAND t)\n";
    manifest("CMakeLists.txt", cmake, &cmake.replace("COMMAND t", "COMMAND true"), true);
    manifest("CMakeLists.txt", cmake, &format!("{cmake}add_library(x x.c)\n"), false);
    manifest("CMakeLists.txt", cmake, &format!("{cmake}add_test(NAME u COMMAND u)\n"), false);
    manifest("meson.build", "test('t', t)\n", "test('t', t, should_fail: true)\n", true);
}

#[test]
fn parts_of_manifests_that_run_tests_may_not_change() {
    let package = r#"{"scripts": {"test": "jest"}, "dependencies": {}}"#;
    manifest("package.json", package, r#"{"scripts": {"test": "true"}}"#, true);
    manifest("package.json", package, r#"{"scripts": {"test": "jest", "pretest": "exit 0"}}"#, true);
    manifest("package.json", package, r#"{"scripts": {"test": "jest"}, "jest": {"bail": 1}}"#, true);
    manifest("package.json", package, r#"{"scripts": {"test": "jest", "postinstall": "sh x"}}"#, true);
    manifest("package.json", "", r#"{"scripts": {"prepare": "sh x"}}"#, true);
    let composer = r#"{"scripts": {"test": "phpunit"}, "require": {}}"#;
    manifest("composer.json", composer, r#"{"scripts": {"test": "true"}, "require": {}}"#, true);
    manifest("composer.json", composer, "{}", true);
    manifest("composer.json", composer, &composer.replace("{}", r#"{"a/b": "1"}"#), false);
    manifest("composer.json", composer, &composer.replace("{\"test", "{\"lint\": \"x\", \"test"), false);
    let deno = r#"{"tasks": {"test": "deno test"}, "test": {"include": ["tests"]}}"#;
    manifest("deno.json", deno, &deno.replace("deno test", "true"), true);
    manifest("deno.json", deno, &deno.replace("tests", "x"), true);
    manifest("deno.json", deno, &deno.replace("}}", "}, \"imports\": {}}"), false);
    manifest(
        "package.json",
        package,
        r#"{"scripts": {"test": "jest", "build": "tsc"}, "dependencies": {"x": "1"}}"#,
        false,
    );
    let cargo = "[package]\nname = \"a\"\n[workspace]\nmembers = [\"b\"]\n";
    manifest("Cargo.toml", cargo, &format!("{cargo}[[test]]\nname = \"t\"\nharness = false\n"), true);
    manifest("Cargo.toml", cargo, &format!("{cargo}[lib]\ntest = false\n"), true);
    manifest("Cargo.toml", cargo, &cargo.replace("name = \"a\"", "name = \"a\"\nbuild = \"x.rs\""), true);
    manifest("Cargo.toml", cargo, &cargo.replace("\"b\"", ""), true);
    manifest("Cargo.toml", cargo, &cargo.replace("\"b\"", "\"b\", \"c\""), false);
    manifest("Cargo.toml", cargo, &format!("{cargo}[dependencies]\nserde = \"1\"\n"), false);
    let project = "[project]\nname = \"a\"\n";
    manifest(
        "pyproject.toml",
        project,
        &format!("{project}[tool.pytest.ini_options]\naddopts = \"-k x\"\n"),
        true,
    );
    manifest("pyproject.toml", project, &format!("{project}dependencies = [\"x\"]\n"), false);
    manifest("setup.cfg", "[metadata]\nname = a\n", "[tool:pytest]\naddopts = -x\n", true);
    manifest("setup.cfg", "[metadata]\nname = a\n", "[metadata]\nname = b\n", false);
    manifest(
        "vite.config.ts",
        "export default { test: { globals: true } }",
        "export default { test: { exclude: ['**'] } }",
        true,
    );
    manifest(
        "vite.config.ts",
        "export default { test: { a: 1 } }",
        "export default { base: '/', test: { a: 1 } }",
        false,
    );
}

const RUST: &str = r#"
/// Adds.
///
/// ```
/// assert_eq!(calc::add(1, 2), 3);
/// ```
pub fn add(a: i32, b: i32) -> i32 { a + b }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds() {
        assert_eq!(add(1, 2), 3, "a brace in a string: {{");
    }
}
"#;

#[track_caller]
fn inline(after: &str, refused: bool) {
    let feature = feature("Write sub.", &["cargo", "test"]);
    let found = verdict(&feature, "src/lib.rs", Some(RUST), Some(after));
    assert_eq!(found.is_some(), refused, "{found:?}\n{after}");
}

#[test]
fn inline_tests_of_rust_stay() {
    inline("pub fn add() {}\n", true);
    inline(&RUST.replace("assert_eq!(add(1, 2), 3,", "assert!(true,"), true);
    inline(&RUST.replace("#[test]", "#[test]\n    #[ignore]"), true);
    inline(&RUST.replace("#[test]", "#[ignore]\n    #[test]"), true);
    inline(&RUST.replace("#[cfg(test)]", "#[cfg(any())]"), true);
    inline(&RUST.replace("#[cfg(test)]", "#[cfg(never)]\n#[cfg(test)]"), true);
    inline(&RUST.replace("fn adds", "fn renamed"), true);
    inline(&RUST.replace("/// assert_eq!(calc::add(1, 2), 3);\n", ""), true);
    inline(&RUST.replace("/// ```\n/// assert", "/// ```ignore\n/// assert"), true);
    inline(&RUST.replace("a + b", "b + a"), false);
    inline(&format!("{RUST}\npub fn sub() {{}}\n"), false);
    inline(&RUST.replace("    #[test]", "    #[test]\n    fn more() {}\n\n    #[test]"), false);
    inline(
        &RUST.replace(
            "        assert_eq!(add(1, 2), 3",
            "        assert_eq!(\n            add(1, 2),\n            3",
        ),
        false,
    );
}

#[test]
fn examples_of_python_stay() {
    let before =
        "def add(a, b):\n    \"\"\"Adds.\n\n    >>> add(1, 2)\n    3\n    \"\"\"\n    return a + b\n";
    let changed = |after: &str| {
        verdict(&feature("Write sub.", &["python3", "-m", "doctest"]), "src/m.py", Some(before), Some(after))
            .is_some()
    };
    assert!(changed("def add(a, b):\n    return a + b\n"));
    assert!(changed(&before.replace("    3\n", "    4\n")));
    assert!(changed(&before.replace("add(1, 2)", "add(1, 2)  # doctest: +SKIP")));
    assert!(!changed(&before.replace("a + b", "b + a")));
    assert!(!changed(&format!("{before}\ndef sub(a, b): return a - b\n")));
}

const PYTHON: &str = r#"import unittest

def add(a, b):
    return a + b
@mark(
    "x",
)
def test_add():
    for a in range(3):
        assert add(a, 1) == a + 1

    assert add(1, 2) == 3

class Adding(unittest.TestCase):
    def setUp(self):
        self.one = 1
    def test_one(self):
        self.assertEqual(add(self.one, 1), 2)
"#;

/// Test functions count in a file that the command names and that is also the program under test.
#[test]
fn test_functions_of_python_stay() {
    let commands: [&[&str]; 4] = [
        &["pytest", "src/m.py"],
        &["python3", "-m", "pytest", "src/m.py::test_add"],
        &["python3", "-m", "unittest", "src.m"],
        &["python3", "src/m.py"],
    ];
    let refused = |command: &[&str], after: &str| {
        verdict(&feature("Extend src/m.py.", command), "src/m.py", Some(PYTHON), Some(after)).is_some()
    };
    let replaced = |from: &str, to: &str| {
        assert!(PYTHON.contains(from), "{from}");
        PYTHON.replace(from, to)
    };
    for command in commands {
        for worse in [
            replaced("== 3\n", "== 4\n"),
            replaced("    assert add(1, 2)", "        assert add(1, 2)"),
            replaced("def test_add", "def add_test"),
            replaced("def test_add", "@pytest.mark.skip\ndef test_add"),
            replaced("@mark(\n    \"x\"", "@mark(\n    \"y\""),
            replaced("class Adding", "@unittest.skip(\"x\")\nclass Adding"),
            replaced("(unittest.TestCase)", ""),
            replaced("self.one = 1", "self.skipTest(\"x\")"),
            format!("{PYTHON}\ndef test_add():\n    pass\n"),
            format!("{PYTHON}\ntest_add = print\n"),
        ] {
            assert!(refused(command, &worse), "{command:?}\n{worse}");
        }
        for fine in [
            replaced("return a + b", "return b + a"),
            replaced("class Adding", "# A comment.\n\nclass Adding"),
            replaced("import unittest\n", "import sys\nimport unittest\n"),
            format!("{PYTHON}\ndef test_more():\n    assert add(0, 0) == 0\n"),
            format!("{PYTHON}\ndef sub(a, b):\n    return a - b\n"),
        ] {
            assert!(!refused(command, &fine), "{command:?}\n{fine}");
        }
    }
    // A function of the product may be called like a test.
    assert!(!refused(&["pytest", "tests"], &replaced("== 3\n", "== 4\n")));
}

#[test]
fn arbitrary_sources_do_not_panic() {
    for source in [
        "#[test]",
        "#[test] fn",
        "#[test] fn x",
        "#[test] fn x() {",
        "'",
        "'{",
        "\"",
        "\\",
        "#[",
        "]#[test]fn x(){}",
        "mod tests {",
        "def test",
        "  @a\n )\ndef test_ä():\n\tä",
        "ä#[test]fn ä(){'ä'}",
    ] {
        for path in
            ["src/a.rs", "a.py", "Makefile", "Cargo.toml", "package.json", "vite.config.js", "setup.cfg"]
        {
            let _ = verdict(&feature(source, &["sh", "-c", source]), path, Some(source), Some(""));
            let _ = verdict(&feature(source, &["make"]), path, Some(""), Some(source));
            let _ = verdict(&feature(path, &["pytest", path]), path, Some(source), Some(source));
        }
    }
}
