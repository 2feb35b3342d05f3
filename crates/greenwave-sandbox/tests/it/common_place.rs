//! Commands in several directories that see their directory at the same path.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use greenwave_sandbox::{Confinement, Sandbox, Strength};
use tempfile::TempDir;

/// Two copies beside each other, and one in another directory.
struct Copies {
    directory: TempDir,
}

impl Copies {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for path in ["state/one/src", "state/two/src", "state/.layers/base/src", "state/.copy/project"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        fs::write(directory.path().join("outside"), "mine\n").unwrap();
        Self { directory }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(path)
    }

    fn sandbox(&self, strength: Strength) -> Sandbox {
        let confinement = Confinement::new().hidden(self.path("state"));
        let parents = ["state", "state/.layers"].map(|parent| self.path(parent));
        let sandbox = Sandbox::new(confinement, strength).unwrap();
        sandbox.shown_at(self.path("state/.copy/project"), parents.into())
    }

    /// Runs a script in a directory of a copy, and returns its output.
    fn run(&self, sandbox: &Sandbox, copy: &str, inside: &str, script: &str) -> String {
        let root = self.path(copy);
        let directory: PathBuf = root.join(inside).components().collect();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(&directory).env("PWD", &directory);
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        sandbox.attach(&mut command, &directory, [&root]).unwrap();
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

#[test]
fn all_copies_are_shown_at_one_path() {
    if let Err(error) = Strength::Mount.available() {
        eprintln!("skipped: {error}");
        return;
    }
    let copies = Copies::new();
    let sandbox = copies.sandbox(Strength::Mount);
    let place = copies.path("state/.copy/project");
    let shown = |path: &Path| format!("{}\n", path.display());
    for copy in ["state/one", "state/two", "state/.layers/base"] {
        assert_eq!(copies.run(&sandbox, copy, "", "pwd -P"), shown(&place), "{copy}");
        assert_eq!(copies.run(&sandbox, copy, "src", "pwd -P"), shown(&place.join("src")), "{copy}");
        assert_eq!(sandbox.place_of(&copies.path(copy), &copies.path(copy)), Some(place.clone()));
        // The own path still leads to the copy, and a shell shows it.
        let script = format!("pwd; echo {copy} > \"$PWD/made\"; cat {}/made", place.display());
        let own = format!("{}{copy}\n", shown(&copies.path(copy)));
        assert_eq!(copies.run(&sandbox, copy, "", &script), own);
        let renames =
            r#"import os; open("a", "w"); os.rename("a", os.environ["PWD"] + "/b"); os.remove("b")"#;
        let script = format!("python3 -c '{renames}' && echo renamed");
        assert_eq!(copies.run(&sandbox, copy, "", &script), "renamed\n");
        let script = format!("echo placed > {}/src/placed; cat src/placed", place.display());
        assert_eq!(copies.run(&sandbox, copy, "", &script), "placed\n");
        assert_eq!(fs::read_to_string(copies.path(copy).join("src/placed")).unwrap(), "placed\n");
    }
    // The other copies and everything else are as far away as before.
    let script = "ls ../.. ../../two ../../one 2>/dev/null; echo x > ../../../outside || echo refused";
    let seen = copies.run(&sandbox, "state/one", "", &format!("{{ {script}; }} 2>/dev/null"));
    assert_eq!(seen.lines().filter(|line| *line == "made").count(), 1, "{seen}");
    assert!(seen.ends_with("refused\n") && !seen.contains("two"), "{seen}");
    assert_eq!(fs::read_to_string(copies.path("outside")).unwrap(), "mine\n");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing is mounted outside");
    let elsewhere = sandbox.without_place();
    assert_eq!(copies.run(&elsewhere, "state/one", "", "pwd -P"), shown(&copies.path("state/one")));
}

#[test]
fn without_mounts_each_copy_has_its_own_path() {
    if let Err(error) = Strength::Landlock.available() {
        eprintln!("skipped: {error}");
        return;
    }
    let copies = Copies::new();
    let (sandbox, one) = (copies.sandbox(Strength::Landlock), copies.path("state/one"));
    assert_eq!(copies.run(&sandbox, "state/one", "", "pwd -P"), format!("{}\n", one.display()));
    assert_eq!(sandbox.place_of(&one, &one), None);
}
