//! Python files that are scripts: they assert something, and pytest finds no test in them.

use std::path::Path;

use greenwave_dir::read_regular_text;

use crate::{HarnessName, Test};

/// Maximum size of a file that is searched for tests, in bytes.
const SCRIPT_BYTES_MAX: u64 = 64 << 20;

/// Returns a test that runs the file of a test by itself, if the file is such a script.
pub(super) fn as_program(test: &Test, project: &Path) -> Option<Test> {
    let (interpreter, file) = (test.command.first()?, test.command.last()?);
    if !file.ends_with(".py") {
        return None;
    }
    let path = project.join(&test.directory).join(file);
    let text = read_regular_text(path, SCRIPT_BYTES_MAX).ok()?;
    let has_tests = text.lines().any(|line| {
        let line = line.trim_start();
        ["def test", "async def test", "class "].iter().any(|start| line.starts_with(start))
    });
    let command = vec![interpreter.clone(), file.clone()];
    (!has_tests && text.contains("assert")).then(|| Test {
        command,
        harness: HarnessName::default(),
        ..test.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_with_assertions_and_without_tests_is_a_script() {
        let root = tempfile::tempdir().unwrap();
        let script = |file: &str, text: &str| {
            std::fs::write(root.path().join("test_a.py"), text).unwrap();
            let test = Test::new("py:test_a.py", ["python3", "-m", "pytest", "-q", file]);
            as_program(&test, root.path())
        };
        let found = script("test_a.py", "assert 1 + 1 == 2\n").unwrap();
        assert_eq!((&*found.name, found.harness), ("py:test_a.py", HarnessName::default()));
        assert_eq!(found.command, ["python3", "test_a.py"]);
        assert_eq!(script("test_a.py", "def test_a():\n    assert True\n"), None);
        assert_eq!(script("test_a.py", "print()\n"), None);
        assert_eq!(script("missing.py", "assert True\n"), None);
        assert_eq!(script("tests", "assert True\n"), None);
    }
}
