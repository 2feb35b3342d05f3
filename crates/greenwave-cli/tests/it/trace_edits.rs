//! Edits generated projects at random, and compares each verdict with that of an uncached run.
//!
//! Every edit writes text that was never there before, so that a result can only be cached by the
//! trace of an earlier run. The share of such results has a lower bound.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use greenwave_testkit::random::Random;

use crate::go_verdicts::has_go;
use crate::harnesses::{python, use_pytest};
use crate::program::{COMPILING_BOUND, Program};
use crate::random::random;
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Returns the number of rounds. `cargo xtask long trace-edits` sets a larger one.
fn rounds(default: u64) -> u64 {
    std::env::var("GREENWAVE_TRACE_EDIT_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// Number of modules. Each imports some modules with a higher number.
const MODULES: u64 = 6;
/// Number of units. Each imports some modules.
const UNITS: u64 = 4;
/// Value of a module that is not broken.
const GOOD: u64 = 1;

/// Minimum number of passes for a check of the share.
const PASSES_MIN: usize = 40;

/// A language in which a project is generated.
trait Language {
    /// Writes the files that no edit changes.
    fn prepare(&self, dir: &TestDir);
    /// Returns the path of a module.
    fn module(&self, number: u64) -> String;
    /// Returns the text of a module with a value. Every module in `imports` must have
    /// the value [`GOOD`], `note` is new text without a meaning.
    fn module_text(&self, number: u64, value: u64, imports: &[u64], note: &str) -> String;
    /// Returns the path and the text of a unit that passes if its modules and `data/N` are good.
    fn unit(&self, number: u64, imports: &[u64], note: &str) -> (String, String);
    /// Returns the path and the text of a file for all units.
    fn common(&self, note: &str) -> (String, String);
}

/// A project with the state that edits need.
struct Edited<'l> {
    language: &'l dyn Language,
    dir: TestDir,
    random: Random,
    imports: Vec<Vec<u64>>,
    unit_imports: Vec<Vec<u64>>,
    /// Modules that are removed or bad, and units with bad data.
    broken: (Vec<u64>, Vec<u64>),
    edits: u64,
}

impl<'l> Edited<'l> {
    fn new(language: &'l dyn Language, mut random: Random) -> Self {
        let mut some = |from: u64| -> Vec<u64> { (from..MODULES).filter(|_| random.below(3) == 0).collect() };
        let imports = (0..MODULES).map(|number| some(number + 1)).collect();
        let unit_imports = (0..UNITS).map(|_| some(0)).collect();
        let dir = TestDir::empty().with("p/.gitignore", ".venv\n__pycache__\n.greenwave\n");
        let broken = Default::default();
        let mut project = Self { language, dir, random, imports, unit_imports, broken, edits: 0 };
        language.prepare(&project.dir);
        let git = Command::new("git").args(["init", "-q"]).current_dir(project.dir.path("p")).status();
        assert!(git.unwrap().success());
        project.write_common();
        (0..MODULES).for_each(|number| project.write_module(number, GOOD));
        for number in 0..UNITS {
            project.write_unit(number);
            project.dir.write(&format!("p/data/{number}"), "1\n");
        }
        project
    }

    /// Returns text that was never used before.
    fn note(&mut self) -> String {
        self.edits += 1;
        format!("edit {} {}", self.edits, self.random.below(1_000_000_000))
    }

    fn write_common(&mut self) {
        let note = self.note();
        let (path, text) = self.language.common(&note);
        self.dir.write(&format!("p/{path}"), text);
    }

    fn write_module(&mut self, number: u64, value: u64) {
        let note = self.note();
        let imports = &self.imports[usize::try_from(number).unwrap()];
        let text = self.language.module_text(number, value, imports, &note);
        self.dir.write(&format!("p/{}", self.language.module(number)), text);
    }

    fn write_unit(&mut self, number: u64) {
        let note = self.note();
        let imports = &self.unit_imports[usize::try_from(number).unwrap()];
        let (path, text) = self.language.unit(number, imports, &note);
        self.dir.write(&format!("p/{path}"), text);
    }

    /// Makes a random edit, and describes it.
    fn edit(&mut self) -> String {
        let (module, unit) = (self.random.below(MODULES), self.random.below(UNITS));
        let note = self.note();
        match self.random.below(12) {
            0 | 1 => {
                self.write_module(module, GOOD);
                format!("module {module} is good")
            }
            2 => {
                self.broken.0.push(module);
                self.write_module(module, GOOD + 1);
                format!("module {module} is bad")
            }
            3 => {
                self.broken.0.push(module);
                let _ = std::fs::remove_file(self.dir.path(&format!("p/{}", self.language.module(module))));
                format!("module {module} is removed")
            }
            4 => {
                let at = usize::try_from(module).unwrap();
                self.imports[at].retain(|_| false);
                self.write_module(module, GOOD);
                format!("module {module} imports nothing")
            }
            5 => {
                self.write_unit(unit);
                format!("unit {unit} is edited")
            }
            6 => {
                let at = usize::try_from(unit).unwrap();
                self.unit_imports[at] = vec![module];
                self.write_unit(unit);
                format!("unit {unit} imports module {module} alone")
            }
            7 => {
                let text = *self.random.one_of(&["1\n", "1\n", "2\n"]);
                self.broken.1.push(unit);
                self.dir.write(&format!("p/data/{unit}"), format!("{text}{note}\n"));
                format!("{text:?} into data of unit {unit}")
            }
            8 => {
                self.write_common();
                "the common file is edited".to_owned()
            }
            _ => {
                self.dir.write("p/README.md", &note);
                "README.md is edited".to_owned()
            }
        }
    }

    /// Mends everything that is broken.
    fn mend(&mut self) {
        let (modules, units) = std::mem::take(&mut self.broken);
        modules.into_iter().for_each(|module| self.write_module(module, GOOD));
        for unit in units {
            let note = self.note();
            self.dir.write(&format!("p/data/{unit}"), format!("1\n{note}\n"));
        }
    }

    fn run(&self, arguments: &[&str]) -> Vec<(String, bool, bool)> {
        let program = Program::new(["test", "--format", "json"].iter().chain(arguments));
        let program = program.within(&self.dir.path("p")).bound(COMPILING_BOUND);
        let program = program.variable("XDG_CACHE_HOME", self.dir.path("cache"));
        verdicts(&program.variable("HOME", self.dir.path("home")).run())
    }

    /// Compares the verdicts after each of some random edits with those of uncached runs. Prints
    /// the share of results that a trace has returned, which must not be below `share_min`.
    fn check(mut self, rounds: u64, share_min: f64) {
        let (mut cached, mut all) = (0, 0);
        let mut edits = String::new();
        for round in 0..rounds {
            let found = self.run(&[]);
            let uncached = self.run(&["--no-cache"]);
            let verdict = |(name, passed, _): &(String, bool, bool)| (name.clone(), *passed);
            let (one, other): (Vec<_>, Vec<_>) =
                (found.iter().map(verdict).collect(), uncached.iter().map(verdict).collect());
            assert_eq!(one, other, "round {round}: a result is stale after these edits:{edits}");
            if round > 0 {
                all += found.iter().filter(|(_, passed, _)| *passed).count();
                cached += found.iter().filter(|(.., is_cached)| *is_cached).count();
            }
            if self.random.below(3) > 0 {
                self.mend();
                write!(edits, "\n{round}: all is mended").unwrap();
            }
            for _ in 0..=self.random.below(2) {
                let edit = self.edit();
                write!(edits, "\n{round}: {edit}").unwrap();
            }
        }
        let share = cached as f64 / f64::max(all as f64, 1.0);
        println!("{cached} of {all} passes were cached by a trace: {share:.2}");
        if all < PASSES_MIN {
            return;
        }
        assert!(share >= share_min, "only {share:.2} of the passes were cached by a trace:{edits}");
    }
}

struct Shell;

impl Language for Shell {
    fn prepare(&self, dir: &TestDir) {
        let mut settings = String::new();
        for number in 0..UNITS {
            let command = format!("command = [\"sh\", \"tests/{number}.sh\"]");
            writeln!(settings, "[[test]]\nname = \"unit {number}\"\n{command}").unwrap();
        }
        dir.write("p/greenwave.toml", settings);
    }

    fn module(&self, number: u64) -> String {
        format!("lib/{number}.sh")
    }

    fn module_text(&self, number: u64, value: u64, imports: &[u64], note: &str) -> String {
        let sources: String = imports.iter().map(|other| format!(". lib/{other}.sh || exit 1\n")).collect();
        format!("# {note}\n{sources}value_{number}={value}\ntest $value_{number} = {GOOD} || exit 1\n")
    }

    fn unit(&self, number: u64, imports: &[u64], note: &str) -> (String, String) {
        let sources: String = imports.iter().map(|other| format!(". lib/{other}.sh || exit 1\n")).collect();
        let text = format!("# {note}\n. ./common.sh\n{sources}head -1 data/{number} | grep -q '^1$'\n");
        (format!("tests/{number}.sh"), text)
    }

    fn common(&self, note: &str) -> (String, String) {
        ("common.sh".to_owned(), format!("# {note}\n"))
    }
}

struct Node;

impl Language for Node {
    fn prepare(&self, dir: &TestDir) {
        let mut settings = String::new();
        for number in 0..UNITS {
            let command = format!("command = [\"node\", \"tests/{number}.js\"]");
            writeln!(settings, "[[test]]\nname = \"unit {number}\"\n{command}").unwrap();
        }
        dir.write("p/greenwave.toml", settings);
    }

    fn module(&self, number: u64) -> String {
        format!("lib/m{number}.js")
    }

    fn module_text(&self, _number: u64, value: u64, imports: &[u64], note: &str) -> String {
        let imports: String = imports.iter().map(|other| format!("require('./m{other}');\n")).collect();
        format!("// {note}\n{imports}require('assert').equal({value}, {GOOD});\n")
    }

    fn unit(&self, number: u64, imports: &[u64], note: &str) -> (String, String) {
        let imports: String = imports.iter().map(|other| format!("require('../lib/m{other}');\n")).collect();
        let data = format!("require('fs').readFileSync('data/{number}', 'utf8').split('\\n')[0]");
        let text =
            format!("// {note}\nrequire('../common');\n{imports}require('assert').equal({data}, '1');\n");
        (format!("tests/{number}.js"), text)
    }

    fn common(&self, note: &str) -> (String, String) {
        ("common.js".to_owned(), format!("// {note}\n"))
    }
}

struct Pytest {
    python: String,
}

impl Language for Pytest {
    fn prepare(&self, dir: &TestDir) {
        use_pytest(dir, &self.python);
        dir.write("p/pytest.ini", "[pytest]\npythonpath = .\n");
        dir.write("p/lib/__init__.py", "");
    }

    fn module(&self, number: u64) -> String {
        format!("lib/m{number}.py")
    }

    fn module_text(&self, _number: u64, value: u64, imports: &[u64], note: &str) -> String {
        let imports: String = imports.iter().map(|other| format!("import lib.m{other}\n")).collect();
        format!("# {note}\n{imports}assert {value} == {GOOD}\n")
    }

    fn unit(&self, number: u64, imports: &[u64], note: &str) -> (String, String) {
        let imports: String = imports.iter().map(|other| format!("import lib.m{other}\n")).collect();
        let text = format!(
            "# {note}\n{imports}def test_it(tmp_path):\n\
             \x20   (tmp_path / 'file').write_text('text')\n\
             \x20   assert open('data/{number}').readline() == '1\\n'\n"
        );
        (format!("tests/test_{number}.py"), text)
    }

    fn common(&self, note: &str) -> (String, String) {
        ("tests/conftest.py".to_owned(), format!("# {note}\n"))
    }
}

struct Go;

impl Language for Go {
    fn prepare(&self, dir: &TestDir) {
        dir.write("p/go.mod", "module example.test/m\n\ngo 1.19\n");
        dir.write("home/x", "");
    }

    fn module(&self, number: u64) -> String {
        format!("m{number}/m.go")
    }

    fn module_text(&self, number: u64, value: u64, imports: &[u64], note: &str) -> String {
        let imports: String =
            imports.iter().map(|other| format!("import _ \"example.test/m/m{other}\"\n")).collect();
        format!(
            "// {note}\npackage m{number}\n\n{imports}\nfunc init() {{ if {value} != {GOOD} {{ panic(1) }} }}\n"
        )
    }

    fn unit(&self, number: u64, imports: &[u64], note: &str) -> (String, String) {
        let imports: String =
            imports.iter().map(|other| format!("import _ \"example.test/m/m{other}\"\n")).collect();
        let text = format!(
            "// {note}\npackage u\n\nimport \"os\"\nimport \"testing\"\nimport _ \"example.test/m/common\"\n{imports}\n\
             func TestIt(t *testing.T) {{\n\
             \tif data, _ := os.ReadFile(\"../data/{number}\"); string(data[:2]) != \"1\\n\" {{ t.Fatal() }}\n}}\n"
        );
        (format!("u{number}/u_test.go"), text)
    }

    fn common(&self, note: &str) -> (String, String) {
        ("common/common.go".to_owned(), format!("// {note}\npackage common\n"))
    }
}

#[test]
fn no_edit_of_a_project_of_scripts_makes_a_result_stale() {
    Edited::new(&Shell, random()).check(rounds(20), 0.2);
}

#[test]
fn no_edit_of_a_project_of_node_makes_a_result_stale() {
    if Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok() {
        Edited::new(&Node, random()).check(rounds(12), 0.2);
    }
}

#[test]
fn no_edit_of_a_project_of_pytest_makes_a_result_stale() {
    let Some(python) = python() else { return };
    Edited::new(&Pytest { python }, random()).check(rounds(10), 0.1);
}

#[test]
fn no_edit_of_a_project_of_go_makes_a_result_stale() {
    if has_go() {
        Edited::new(&Go, random()).check(rounds(4), 0.0);
    }
}
