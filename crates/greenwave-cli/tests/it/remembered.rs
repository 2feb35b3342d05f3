//! `greenwave test` where nothing has changed since all was known: it answers at once, and only then. By a clock that is ahead, what was written just
//! now has come to rest.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::clock::{Clocked, HOUR};
use crate::folder::Folder;
use crate::program::{Finished, Program};

const CONFIG: &str = r#"
[testing]
ttl = "30m"

[[test]]
name = "reads"
command = "grep -q 1 in/a.txt && grep -q 1 undeclared.txt && test ! -e gone.txt && test \"$MODE\" != bad && grep -q 1 in/link"
inputs = ["/in/**", "!*.md"]
env = ["MODE"]

[[test]]
name = "tool"
command = ["probe", "x"]
folders = ["in"]
"#;

/// A project whose last run has remembered what it said.
struct Remembered(Clocked);

impl Remembered {
    fn new() -> Option<Self> {
        let folder = Folder::empty()
            .with("p/greenwave.toml", CONFIG)
            .with("p/in/a.txt", "1")
            .with("p/in/deep/b.txt", "1")
            .with("p/in/notes.md", "1")
            .with("p/undeclared.txt", "1")
            .with("target.txt", "1")
            .with("early/nothing", "")
            .with("late/probe", "#!/bin/sh\nexit 0\n");
        fs::set_permissions(folder.path("late/probe"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../../target.txt", folder.path("p/in/link")).unwrap();
        let it = Self(Clocked::of(folder)?);
        it.0.set(HOUR);
        assert!(!it.run(&[]).with_code(0).stdout.contains("known"));
        assert_eq!(it.written(), None, "what ran was not known");
        assert!(!it.is_at_once(&[]), "it has to be looked up once");
        assert!(it.is_at_once(&[]));
        Some(it)
    }

    fn program(&self, args: &[&str]) -> Program {
        let path = std::env::var("PATH").unwrap();
        let folder = |name: &str| self.0.folder.path(name).display().to_string();
        let path = format!("{}:{}:{path}", folder("early"), folder("late"));
        self.0.greenwave(["test"].into_iter().chain(args.iter().copied())).variable("PATH", path)
    }

    fn run(&self, args: &[&str]) -> Finished {
        self.program(args).run()
    }

    /// Which file the answer stands in, which is another each time that it is remembered.
    fn written(&self) -> Option<(u64, i64)> {
        let metadata = fs::metadata(self.0.folder.path("p/.greenwave/tests/answer")).ok()?;
        Some((metadata.ino(), metadata.ctime_nsec()))
    }

    /// Whether everything is known, and nothing had to be looked up for that.
    #[track_caller]
    fn is_at_once(&self, args: &[&str]) -> bool {
        let before = self.written();
        let finished = self.run(args).with_code(0);
        assert!(finished.stdout.contains("2 tests: 2 passed, all known (saved "), "{}", finished.stdout);
        before.is_some() && self.written() == before
    }

    /// Everything is known, but had to be looked up, and is remembered then.
    #[track_caller]
    fn is_looked_up(&self) {
        assert!(!self.is_at_once(&[]));
        assert!(self.is_at_once(&[]));
    }

    /// Something runs again, and ends so; it is no longer all known.
    #[track_caller]
    fn runs_again(&self, args: &[&str], code: i32) -> Finished {
        let finished = self.run(args).with_code(code);
        assert!(!finished.stdout.contains("all known"), "{}", finished.stdout);
        finished
    }
}

/// Overwrites a file by as much, with the time that it had.
fn disguise(folder: &Folder, path: &str, text: &str) {
    let path = folder.path(path);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, text).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn what_a_result_hangs_on_is_not_overlooked() {
    type Change = fn(&Folder);
    let changes: [(&str, Change); 9] = [
        ("an input", |folder| disguise(folder, "p/in/a.txt", "2")),
        ("what a link leads to", |folder| disguise(folder, "target.txt", "2")),
        ("a link", |folder| {
            fs::remove_file(folder.path("p/in/link")).unwrap();
            symlink("../../early/nothing", folder.path("p/in/link")).unwrap();
        }),
        ("an undeclared file", |folder| disguise(folder, "p/undeclared.txt", "2")),
        ("a file that was not there", |folder| folder.write("p/gone.txt", "")),
        ("an input that is gone", |folder| fs::remove_file(folder.path("p/in/a.txt")).unwrap()),
        ("what there is to be run", |folder| {
            folder.write("p/greenwave.toml", CONFIG.replace("-q 1 in/a.txt", "-q 2 in/a.txt"));
        }),
        ("a program", |folder| disguise(folder, "late/probe", "#!/bin/sh\nexit 1\n")),
        ("another program of that name", |folder| {
            folder.write("early/probe", "#!/bin/sh\nexit 1\n");
            fs::set_permissions(folder.path("early/probe"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let Some(it) = Remembered::new() else { return };
        change(&it.0.folder);
        let finished = it.run(&[]);
        assert_eq!(finished.status.code(), Some(1), "{what}: {}", finished.stdout);
        assert!(finished.stdout.contains("1 failed"), "{what}: {}", finished.stdout);
    }
}

#[test]
fn what_runs_again_and_passes_is_not_overlooked_either() {
    let Some(it) = Remembered::new() else { return };
    // A new input, in a folder that was there.
    it.0.folder.write("p/in/deep/c.txt", "1");
    it.runs_again(&[], 0);
    it.is_looked_up();
    // What is ignored is no input of a folder; that one was is seen by its ignore file.
    it.0.folder.write("p/.gitignore", "b.txt\n");
    it.runs_again(&[], 0);
    it.is_looked_up();
    it.0.folder.write("p/.gitignore", "a.txt\n");
    it.runs_again(&[], 0);
    it.is_looked_up();
    // A variable that a test declares, and one that all see.
    for (name, value) in [("MODE", "good"), ("LANG", "C.UTF-8")] {
        let finished = it.program(&[]).variable(name, value).run().with_code(0);
        assert!(!finished.stdout.contains("all known"), "{name}: {}", finished.stdout);
    }
    it.is_looked_up();
    let failed = it.program(&[]).variable("MODE", "bad").run().with_code(1);
    assert!(failed.stdout.contains("1 failed"), "{}", failed.stdout);
}

#[test]
fn results_that_are_forgotten_are_made_again() {
    let Some(it) = Remembered::new() else { return };
    it.0.greenwave(["cache", "clear"]).run().with_code(0);
    it.runs_again(&[], 0);
    it.is_looked_up();
    fs::remove_dir_all(it.0.folder.path("cache")).unwrap();
    it.runs_again(&[], 0);
    it.is_looked_up();
    // They last for half an hour.
    it.0.set(HOUR + HOUR / 4);
    assert!(it.is_at_once(&[]));
    it.0.set(2 * HOUR);
    it.runs_again(&[], 0);
    it.is_looked_up();
    // Others that are kept or removed beside them may have been in their place.
    it.0.folder.write("other/greenwave.toml", CONFIG.replace("probe", "true"));
    it.0.folder.write("other/in/a.txt", "other");
    let other = it.0.folder.path("other");
    it.program(&["--project", other.to_str().unwrap(), "tool"]).run().with_code(0);
    it.is_looked_up();
}

#[test]
fn who_asks_for_more_is_told_more() {
    let Some(it) = Remembered::new() else { return };
    let audited = it.run(&["--audit", "100%"]).with_code(0);
    assert!(audited.stdout.contains("2 known results checked again"), "{}", audited.stdout);
    it.runs_again(&["--no-cache"], 0);
    let verbose = it.run(&["--verbose"]).with_code(0);
    assert!(verbose.stdout.contains("known    reads"), "{}", verbose.stdout);
    let one = it.run(&["tool"]).with_code(0);
    assert!(one.stdout.contains("1 test: 1 passed"), "{}", one.stdout);
    let json = it.run(&["--format", "json"]).with_code(0);
    assert_eq!(json.events().iter().filter(|event| event["known"] == true).count(), 2);
    // What is not traced is kept apart.
    it.runs_again(&["--set", "testing.trace=false"], 0);
    let wrong = it.program(&[]).variable("GREENWAVE_NONSENSE", "1").run().with_code(2);
    assert!(wrong.stderr.contains("no setting has this name"), "{}", wrong.stderr);
}

#[test]
fn nobody_else_can_make_an_answer_up() {
    let Some(it) = Remembered::new() else { return };
    let path = it.0.folder.path("p/.greenwave/tests/answer");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        // What is not sealed is not believed, and made anew.
        if at % 5 == 0 {
            it.is_looked_up();
        }
    }
    for length in [0, 7, 31, 32, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        it.is_looked_up();
    }
    // With another secret, none that was sealed before counts.
    let secret = it.0.folder.path("cache/greenwave/tests/secret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&secret, [7; 32]).unwrap();
    it.is_looked_up();
    fs::remove_file(&secret).unwrap();
    it.is_looked_up();
    // Nor in another place, with the same files in it.
    fs::rename(it.0.folder.path("p"), it.0.folder.path("q")).unwrap();
    symlink(it.0.folder.path("q"), it.0.folder.path("p")).unwrap();
    assert!(!it.is_at_once(&[]));
}

#[test]
fn what_has_not_rested_is_not_remembered() {
    let Some(it) = Remembered::new() else { return };
    it.0.set(0);
    it.0.folder.write("p/in/a.txt", "1 1");
    it.runs_again(&[], 0);
    // It could be overwritten within the step of the clock, and look the same.
    fs::remove_file(it.0.folder.path("p/.greenwave/tests/answer")).unwrap();
    for _ in 0..3 {
        assert!(!it.is_at_once(&[]));
    }
    assert_eq!(it.written(), None);
}

#[test]
fn an_ignore_file_counts_wherever_it_is() {
    let config =
        "[[test]]\nname = \"t\"\ncommand = \"! grep -q bad in/deep/*.txt\"\nfolders = [\"in/deep\"]\n";
    // Above what is looked for, and itself ignored.
    for ignore_file in ["p/.gitignore", "p/in/.ignore", "p/in/deep/.gitignore"] {
        let folder = Folder::empty().with("p/greenwave.toml", config).with(ignore_file, "b.txt\n.*ignore\n");
        let folder = folder.with("p/in/deep/a.txt", "good").with("p/in/deep/b.txt", "good");
        let Some(clocked) = Clocked::of(folder) else { return };
        clocked.set(HOUR);
        // Without being watched, since what is watched is seen to be read as well.
        let run = || clocked.greenwave(["test", "--set", "testing.trace=false"]).run();
        for _ in 0..3 {
            run().with_code(0);
        }
        clocked.folder.write(ignore_file, "\n");
        let finished = run().with_code(0);
        assert!(!finished.stdout.contains("known"), "{ignore_file}: {}", finished.stdout);
        for _ in 0..2 {
            run().with_code(0);
        }
        clocked.folder.write("p/in/deep/b.txt", "bad!");
        run().with_code(1);
    }
}
