//! Discovers the tests of pytest and Go without running them.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use greenwave_testing::{
    Discovery, DiscoveryNote, Environment, Error, Harnesses, ListingContext, Test, UserKey,
};
use tempfile::TempDir;

/// A project, and a directory with programs for its `PATH`.
pub(crate) struct Project {
    directory: TempDir,
    files: Vec<PathBuf>,
}

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { directory, files: files.iter().map(|(path, _)| PathBuf::from(path)).collect() }
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    fn programs(&self, names: &[&str]) -> Environment {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.directory.path().join(".programs");
        fs::create_dir_all(&directory).unwrap();
        for name in names {
            fs::create_dir_all(directory.join(name).parent().unwrap()).unwrap();
            fs::write(directory.join(name), "").unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Environment::new([("PATH".into(), directory.into())])
    }

    fn try_find(&self) -> Result<Discovery, Error> {
        let environment = self.programs(&["go", "npm", "pnpm", "yarn", "bun", "python3"]);
        self.find_with(&environment)
    }

    fn find_with(&self, environment: &Environment) -> Result<Discovery, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.discover(environment))
    }

    async fn discover(&self, environment: &Environment) -> Result<Discovery, Error> {
        let project = greenwave_testing::Project::new(self.directory.path(), self.files.clone(), environment);
        Harnesses::builtin().discover(&project).await
    }

    pub(crate) fn find(&self) -> Discovery {
        self.try_find().unwrap()
    }

    #[track_caller]
    pub(crate) fn check(&self, expected: &[&str]) {
        let names: Vec<String> = self.find().tests.into_iter().map(|test| test.name).collect();
        assert_eq!(names, expected);
    }
}

/// Returns an error's message followed by those of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn of<'d>(found: &'d Discovery, name: &str) -> &'d Test {
    found.tests.iter().find(|test| test.name == name).unwrap()
}

pub(crate) fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

#[test]
fn files_that_pytest_collects_are_discovered() {
    let usual =
        [("tests/test_a.py", ""), ("tests/b_test.py", ""), ("tests/helper.py", ""), ("build/test_c.py", "")];
    Project::new(&usual).check(&["py:tests/test_a.py", "py:tests/b_test.py"]);
    let with = |path: &'static str, text: &'static str| {
        let mut files = usual.to_vec();
        files.extend([(path, text), ("checks/check_d.py", ""), ("more/deep/test_e.py", "")]);
        Project::new(&files)
    };
    let all = ["py:tests/test_a.py", "py:tests/b_test.py", "py:more/deep/test_e.py"];
    with("pyproject.toml", "[project]\nname = 'x'\n").check(&all);
    with("pytest.ini", "").check(&all);
    let asked = ["py:more/deep/test_e.py"];
    with("pyproject.toml", "[tool.pytest.ini_options]\ntestpaths = ['more']\n").check(&asked);
    with("pyproject.toml", "[tool.pytest]\ntestpaths = ['more/*']\n").check(&asked);
    with("pytest.toml", "[pytest]\ntestpaths = ['./more/']\n").check(&asked);
    with("setup.cfg", "[metadata]\nname = x\n[tool:pytest]\ntestpaths =\n    # here\n    more\n")
        .check(&asked);
    with("tox.ini", "[tox]\n[pytest]\nnorecursedirs = tests build\n").check(&asked);
    with("tox.ini", "[tox]\nnorecursedirs = more\n").check(&all);
    let named = ["py:checks/check_d.py"];
    with(".pytest.ini", "[pytest]\npython_files = check_*.py\n").check(&named);
    with("pytest.ini", "[pytest]\npython_files: checks/*.py\n").check(&named);
    with("pytest.ini", "[pytest]\ntestpaths = build\n").check(&["py:build/test_c.py"]);
}

#[test]
fn a_python_test_depends_on_its_project_and_local_dependencies() {
    let project = Project::new(&[
        (
            "a/pyproject.toml",
            "[project]\nname = 'A'\n[tool.pytest.ini_options]\n[tool.uv.sources]\nB_b = { workspace = true }\n",
        ),
        ("a/tests/test_a.py", ""),
        (
            "b/pyproject.toml",
            "[project]\nname = 'b.B'\n[tool.poetry.group.dev.dependencies]\nc = { path = '../c' }\n",
        ),
        ("b/b.py", ""),
        (
            "c/requirements.txt",
            "requests>2\n-e ../d[extra]  # ours\n--editable=./inner\n../../outside\nx.whl\n",
        ),
        ("c/c.py", ""),
        ("e/test_e.py", ""),
        ("e/setup.py", ""),
        ("top/test_f.py", ""),
    ]);
    let found = project.find();
    let a = of(&found, "py:a/tests/test_a.py");
    assert_eq!(a.directories, paths(&["a", "b", "c", "c/inner", "d"]));
    assert_eq!(a.command[..3], ["python3", "-m", "pytest"]);
    assert_eq!(a.command.last().unwrap(), "tests/test_a.py");
    assert_eq!((a.directory.as_path(), a.set["PYTHONDONTWRITEBYTECODE"].as_str()), (Path::new("a"), "1"));
    assert_eq!(of(&found, "py:e/test_e.py").directories, paths(&["e"]));
    // No manifest says which project it belongs to, so all files are inputs.
    assert_eq!(of(&found, "py:top/test_f.py").directories, paths(&[]));
    let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
    let outside = "c/requirements.txt depends on ../../outside, which is outside the project: changes there are not noticed without tracing";
    assert_eq!(notes, [outside]);
}

#[test]
fn the_nearest_virtual_environment_is_used() {
    let project =
        Project::new(&[("a/setup.py", ""), ("a/test_a.py", ""), ("b/setup.py", ""), ("b/test_b.py", "")]);
    for path in [".venv/bin/python", "b/venv/bin/python"] {
        let path = project.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let found = project.find();
    assert_eq!(of(&found, "py:a/test_a.py").command[0], "../.venv/bin/python");
    assert_eq!(of(&found, "py:b/test_b.py").command[0], "venv/bin/python");
    // The user runs pytest in another environment than one without it.
    fs::write(project.directory.path().join("b/venv/pyvenv.cfg"), "home = /usr/bin\n").unwrap();
    assert_eq!(of(&project.find(), "py:b/test_b.py").command[0], "../.venv/bin/python");
    fs::create_dir_all(project.directory.path().join("b/venv/lib/python3.9/site-packages/pytest")).unwrap();
    assert_eq!(of(&project.find(), "py:b/test_b.py").command[0], "venv/bin/python");
}

#[test]
fn the_interpreter_of_the_program_pytest_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new(&[("test_a.py", "")]);
    let environment = project.programs(&["python3", "pytest", "other/python3"]);
    let programs = project.directory.path().join(".programs");
    let check = |first_line: &str, expected: &str, notes: &[String]| {
        fs::write(programs.join("pytest"), format!("{first_line}\nimport pytest\n")).unwrap();
        fs::set_permissions(programs.join("pytest"), fs::Permissions::from_mode(0o755)).unwrap();
        let found = project.find_with(&environment).unwrap();
        assert_eq!(found.tests[0].command[0], expected);
        assert_eq!(found.collections[0].command[0], expected);
        assert_eq!(found.notes.iter().map(ToString::to_string).collect::<Vec<_>>(), notes);
    };
    let other = programs.join("other/python3").display().to_string();
    let program = programs.join("pytest").display().to_string();
    let note = format!("tests run with {other}, the interpreter of {program}");
    check(&format!("#!{other}"), &other, &[note]);
    check(&format!("#!{}", programs.join("python3").display()), "python3", &[]);
    check("#!/usr/bin/env python3", "python3", &[]);
    check("#!/bin/sh", "python3", &[]);
}

#[test]
fn pytest_collects_from_the_outermost_directories_with_its_settings() {
    let settings = "[tool.pytest.ini_options]\n";
    let collections = |files: &[(&'static str, &'static str)]| -> Vec<PathBuf> {
        Project::new(files).find().collections.into_iter().map(|test| test.directory).collect()
    };
    let inner = ("a/pyproject.toml", settings);
    let tests = [("a/test_a.py", ""), ("b/test_b.py", "")];
    assert_eq!(collections(&[inner, tests[0]]), paths(&["a"]));
    assert_eq!(collections(&[inner, tests[0], tests[1]]), paths(&["", "a"]));
    assert_eq!(collections(&[("pytest.ini", ""), inner, tests[0], tests[1]]), paths(&[""]));
    // Settings may name files that no pattern matches.
    assert_eq!(collections(&[("pytest.ini", ""), ("suite.py", "")]), paths(&[""]));
    assert_eq!(collections(&[("suite.py", "")]), paths(&[]));
}

#[test]
fn go_packages_are_discovered() {
    let project = Project::new(&[
        ("go.work", "go 1.24\nuse ./app // this\nuse (\n\t./lib\n\t\"./tools\"\n)\n"),
        ("app/go.mod", "module example.com/app\nreplace example.com/y => ../y\n"),
        ("app/main_test.go", ""),
        ("app/pkg/x/x_test.go", ""),
        ("app/pkg/x/y_test.go", ""),
        ("app/pkg/no.go", ""),
        ("app/vendor/z/z_test.go", ""),
        ("app/testdata/t_test.go", ""),
        ("app/_old/t_test.go", ""),
        ("app/.hidden/t_test.go", ""),
        (
            "lib/go.mod",
            "module example.com/lib\nreplace (\n  example.com/a v1.0.0 => ../../a\n  b => c v1.2.3\n)\n",
        ),
        ("lib/lib_test.go", ""),
        ("tools/go.mod", "module example.com/tools\n"),
        ("y/go.mod", "module example.com/y\n"),
        ("alone/go.mod", "module example.com/alone"),
        ("alone/sub/a_test.go", ""),
        ("nowhere/a_test.go", ""),
    ]);
    project.check(&["go:./alone/sub", "go:./app", "go:./app/pkg/x", "go:./lib"]);
    let found = project.find();
    let x = of(&found, "go:./app/pkg/x");
    assert_eq!(x.command, ["go", "test", "-count=1", "./pkg/x"]);
    assert_eq!(x.directory, Path::new("app"));
    assert_eq!(x.directories, paths(&["app", "y", "lib", "tools"]));
    assert_eq!(x.inputs, ["/go.work"]);
    assert_eq!(of(&found, "go:./app").command[3], ".");
    assert_eq!(of(&found, "go:./alone/sub").directories, paths(&["alone"]));
    let [note] = found.notes.as_slice() else { panic!("{:?}", found.notes) };
    assert!(note.to_string().starts_with("lib/go.mod depends on ../../a, which is outside"));
    let whole = Project::new(&[("go.mod", "module m"), ("m_test.go", ""), ("p/p_test.go", "")]);
    assert_eq!(of(&whole.find(), "go:.").directories, paths(&[]));
    whole.check(&["go:.", "go:./p"]);
}

#[test]
fn a_go_before_1_19_lists_all_fields_of_packages() {
    let project = Project::new(&[("go.mod", "module m"), ("m_test.go", ""), ("p/p_test.go", "")]);
    let environment = project.programs(&["go"]);
    let root = project.root().display();
    // The build tags of `m_test.go` exclude it.
    let script = format!(
        "#!/bin/sh\ncase $5 in -json=*) exit 2;; esac\nprintf '%s' \
         '{{\"Dir\": \"{root}\", \"ImportPath\": \"m\"}} \
         {{\"Dir\": \"{root}/p\", \"ImportPath\": \"m/p\", \"TestGoFiles\": [\"p_test.go\"]}}'\n"
    );
    fs::write(project.root().join(".programs/go"), script).unwrap();
    let names: Vec<String> =
        project.find_with(&environment).unwrap().tests.into_iter().map(|test| test.name).collect();
    assert_eq!(names, ["go:./p", "go:. (packages without tests)"]);
}

#[test]
fn manifests_that_cannot_be_read_are_notes() {
    let project = Project::new(&[
        ("good/test_a.py", ""),
        ("bad/pyproject.toml", "[project]\nname = \n"),
        ("bad/test_b.py", ""),
        ("encoded/pytest.ini", ""),
        ("encoded/test_c.py", ""),
        ("go.mod", ""),
        ("d_test.go", ""),
    ]);
    fs::write(project.root().join("encoded/pytest.ini"), b"[pytest]\nx = \xff\n").unwrap();
    fs::write(project.root().join("go.mod"), b"module m // \xff\n").unwrap();
    project.check(&["py:good/test_a.py", "py:bad/test_b.py", "py:encoded/test_c.py", "go:."]);
    let notes: Vec<String> = project.find().notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "bad/pyproject.toml is skipped: cannot parse `pyproject.toml` at line 2, column 8: string values must be quoted, expected literal string",
            "encoded/pytest.ini is skipped: cannot read `pytest.ini`: expected UTF-8",
            "go.mod is skipped: cannot read `go.mod`: expected UTF-8",
        ]
    );
}

#[test]
fn missing_programs_are_noted() {
    let project = Project::new(&[
        ("go.mod", "module m"),
        ("a/a_test.go", ""),
        ("b/b_test.go", ""),
        ("package.json", r#"{"scripts":{"test":"x"}}"#),
        ("test_a.py", ""),
    ]);
    let found = project.find_with(&project.programs(&[])).unwrap();
    let notes: Vec<String> = found.notes.iter().map(ToString::to_string).collect();
    assert_eq!(found.tests.len(), 4);
    assert_eq!(
        notes,
        [
            "`python3` is not installed, and a test needs it",
            "`go` is not installed, and 2 tests need it",
            "`npm` is not installed, and a test needs it"
        ]
    );
    let nothing = Project::new(&[("README.md", "")]).find();
    assert_eq!(nothing, Discovery::default());
}

#[test]
fn the_text_of_a_configuration_has_every_test() {
    let odd = Test {
        directory: "a \"b\"".into(),
        inputs: vec!["src/**".to_owned(), "back\\slash".to_owned()],
        directories: paths(&["ü/ö"]),
        outputs: vec!["out/".to_owned()],
        env: vec!["TOKEN".to_owned()],
        set: [("A B".to_owned(), "line\nline".to_owned())].into(),
        needs: [("database".to_owned(), 2)].into(),
        parallel_safe: false,
        retries: 3,
        time_max: std::time::Duration::from_millis(1500),
        ..Test::new("odd = \"''' name\t\u{7f}", ["sh", "-c", "echo '\"'"])
    };
    let plain = Test::new("plain", ["true"]);
    let text = Discovery { tests: vec![odd, plain], ..Discovery::default() }.init_text();
    let table: toml::Table = text.parse().unwrap();
    let tests = table["test"].as_array().unwrap();
    let text_of = |test: usize, key: &str| tests[test][key].as_str().unwrap().to_owned();
    assert_eq!(text_of(0, "name"), "odd = \"''' name\t\u{7f}");
    assert_eq!(text_of(0, "directory"), "a \"b\"");
    assert_eq!(text_of(0, "timeout"), "1s 500ms");
    assert_eq!(tests[0]["command"].as_array().unwrap()[2].as_str().unwrap(), "echo '\"'");
    assert_eq!(tests[0]["set"]["A B"].as_str().unwrap(), "line\nline");
    assert_eq!(tests[0]["needs"]["database"].as_integer().unwrap(), 2);
    assert!(!tests[0]["parallel_safe"].as_bool().unwrap());
    assert_eq!(tests[1].as_table().unwrap().len(), 2);
    let end: String = text.lines().skip_while(|line| !line.contains("plain")).collect::<Vec<_>>().join("\n");
    assert_eq!(end, "name = \"plain\"\ncommand = [\"true\"]");
}

#[tokio::test]
async fn pytest_files_are_split_into_collected_tests() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new(&[
        ("setup.py", ""),
        ("t/test_a.py", ""),
        ("t/test_b.py", ""),
        ("go.mod", ""),
        ("x_test.go", ""),
    ]);
    let environment = project.programs(&["go", "python3"]);
    let pytest = |script: &str| {
        let program = project.directory.path().join(".programs/python3");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let split = async || {
        let mut found = project.discover(&environment).await.unwrap();
        let context = ListingContext::new(project.directory.path(), &environment);
        found.split(&Harnesses::builtin(), &context).await.map(|()| found)
    };
    pytest(
        "echo \"$@\" > asked; echo 't/test_a.py::test_x'; echo 't/test_a.py::C::test_y[a b]'; echo; echo '2 tests collected in 0.1s'",
    );
    let found = split().await.unwrap();
    let names: Vec<&str> = found.tests.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names, ["py:t/test_a.py::test_x", "py:t/test_a.py::C::test_y[a b]", "py:t/test_b.py", "go:."]);
    assert_eq!(found.tests[1].command.last().unwrap(), "t/test_a.py::C::test_y[a b]");
    assert_eq!(found.tests[1].command[..6], found.tests[2].command[..6]);
    let asked = fs::read_to_string(project.directory.path().join("asked")).unwrap();
    assert_eq!(
        asked,
        "-m pytest -o cache_dir=$TMPDIR/pytest_cache -q --collect-only --rootdir=. t/test_a.py t/test_b.py\n"
    );

    pytest("echo 'no tests collected'; exit 5");
    assert_eq!(split().await.unwrap().tests.len(), 3);
    pytest("echo 'ERROR t/test_a.py - SyntaxError'; exit 2");
    let problem = chain(&split().await.unwrap_err());
    assert!(
        problem.ends_with("`pytest --collect-only` failed: ERROR t/test_a.py - SyntaxError"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_discovery_is_reused_until_a_manifest_or_the_list_of_files_changes() {
    let project = Project::new(&[("pytest.ini", "[pytest]\n"), ("test_a.py", "")]);
    let environment = project.programs(&["python3"]);
    let root = project.directory.path();
    let key = UserKey::new([1; 32]);
    let names = async || -> Vec<String> {
        let found =
            greenwave_testing::discover(root, &Harnesses::builtin(), &environment, &key).await.unwrap();
        found.tests.into_iter().map(|test| test.name).collect()
    };
    // Marks the stored discovery, so that a reused one differs from a new one.
    let file = root.join(greenwave_testing::STATE_DIRECTORY).join("tests/found.json");
    let seal = key.for_project(root).unwrap();
    let mark = || {
        let text = String::from_utf8(seal.read(&file).valid().unwrap()).unwrap();
        seal.replace(&file, text.replace("py:test_a.py", "stored").into()).unwrap();
    };
    assert_eq!(names().await, ["py:test_a.py"]);
    mark();
    assert_eq!(names().await, ["stored"]);
    fs::write(root.join("test_a.py"), "changed = True").unwrap();
    assert_eq!(names().await, ["stored"]);
    fs::write(root.join("pytest.ini"), "[pytest]\npython_files = test_*.py\n").unwrap();
    assert_eq!(names().await, ["py:test_a.py"]);
    mark();
    fs::write(root.join("test_b.py"), "").unwrap();
    assert_eq!(names().await, ["py:test_a.py", "py:test_b.py"]);

    // A stored discovery of somebody else, or of another project, is not used.
    let foreign = [
        fs::read(&file).unwrap().split_last_chunk::<32>().unwrap().0.to_vec(),
        UserKey::new([2; 32])
            .for_project(root)
            .unwrap()
            .seal("found.json", seal.read(&file).valid().unwrap()),
        key.for_project(project.directory.path().parent().unwrap())
            .unwrap()
            .seal("found.json", seal.read(&file).valid().unwrap()),
        key.for_project(root).unwrap().seal("tools.json", seal.read(&file).valid().unwrap()),
    ];
    for bytes in foreign {
        fs::write(&file, String::from_utf8_lossy(&bytes).replace("py:test_a.py", "stored").as_bytes())
            .unwrap();
        assert_eq!(names().await, ["py:test_a.py", "py:test_b.py"]);
        fs::write(&file, &bytes).unwrap();
        let found =
            greenwave_testing::discover(root, &Harnesses::builtin(), &environment, &key).await.unwrap();
        assert_eq!(found.notes, [DiscoveryNote::ForeignState]);
        let found =
            greenwave_testing::discover(root, &Harnesses::builtin(), &environment, &key).await.unwrap();
        assert!(found.notes.is_empty(), "the file was replaced");
    }
}
