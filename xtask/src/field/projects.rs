//! Small projects that are edited, with the number of tests that read what each edit changes.

/// A project that needs nothing from a registry.
#[derive(Debug)]
pub(super) struct LocalProject {
    pub(super) name: &'static str,
    /// Paths and contents.
    pub(super) files: &'static [(&'static str, &'static str)],
    pub(super) edits: &'static [Edit],
}

/// A change, and the number of tests whose result depends on it.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) name: &'static str,
    pub(super) change: Change,
    pub(super) needed: usize,
}

/// A change of files.
#[derive(Debug)]
pub(super) enum Change {
    Nothing,
    Write(&'static str, &'static str),
    /// Replaces a part of a file.
    Replace(&'static str, &'static str, &'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Commit,
}

use Change::{Commit, Remove, Rename, Replace, Write};

const fn edit(name: &'static str, change: Change, needed: usize) -> Edit {
    Edit { name, change, needed }
}

/// Commands without declared inputs: the trace alone decides.
const COMMANDS: LocalProject = LocalProject {
    name: "commands",
    files: &[
        (
            "greenwave.toml",
            "[[test]]\nname = \"one\"\ncommand = \"sh one.sh\"\n\
             [[test]]\nname = \"two\"\ncommand = \"sh two.sh\"\n\
             [[test]]\nname = \"list\"\ncommand = \"sh list.sh\"\n\
             [[test]]\nname = \"old\"\ncommand = \"sh old.sh\"\n",
        ),
        ("one.sh", ". ./lib.sh\ncheck \"$(cat data/one.txt)\" 1\n"),
        ("two.sh", ". ./lib.sh\ncheck \"$(cat data/two.txt)\" 2\n"),
        ("list.sh", "set -- data/*\n[ $# -ge 2 ]\n"),
        ("old.sh", "[ ! -e data/old.txt ]\n"),
        ("lib.sh", "check() { [ \"$1\" = \"$2\" ]; }\n"),
        ("data/one.txt", "1\n"),
        ("data/two.txt", "2\n"),
        ("README.md", "A project.\n"),
    ],
    edits: &[
        edit("a README", Write("README.md", "Another text.\n"), 0),
        edit("data", Write("data/one.txt", "3\n"), 1),
        edit("a body", Replace("lib.sh", "[ \"$1\" = \"$2\" ]", "[ -n \"$1\" ]"), 2),
        edit("a new file", Write("data/old.txt", "\n"), 2),
        edit("a deletion", Remove("data/old.txt"), 0),
        edit("a rename", Rename("data/two.txt", "data/three.txt"), 2),
        edit("a commit", Commit, 0),
    ],
};

/// Packages with a script of npm each. One needs another.
const NPM: LocalProject = LocalProject {
    name: "npm",
    files: &[
        ("package.json", "{\"name\":\"all\",\"private\":true,\"workspaces\":[\"a\",\"b\",\"c\"]}\n"),
        (
            "a/package.json",
            "{\"name\":\"a\",\"version\":\"1.0.0\",\"scripts\":{\"test\":\"node --test t.test.js\"}}\n",
        ),
        ("a/sum.js", "exports.sum = (a, b) => a + b;\n"),
        (
            "a/t.test.js",
            "require('node:test')('sum', () => require('node:assert').equal(require('./sum').sum(1, 2), 3));\n",
        ),
        (
            "b/package.json",
            "{\"name\":\"b\",\"version\":\"1.0.0\",\"scripts\":{\"test\":\"node --test t.test.js\"}}\n",
        ),
        (
            "b/t.test.js",
            "require('node:test')('sum', () => require('node:assert').equal(require('../a/sum').sum(2, 2), 4));\n",
        ),
        (
            "c/package.json",
            "{\"name\":\"c\",\"version\":\"1.0.0\",\"scripts\":{\"test\":\"node --test t.test.js\"}}\n",
        ),
        ("c/data.json", "[1, 2]\n"),
        (
            "c/t.test.js",
            "require('node:test')('data', () => require('node:assert').equal(require('./data.json').length, 2));\n",
        ),
        ("a/README.md", "A package.\n"),
    ],
    edits: &[
        edit("a README", Write("a/README.md", "Another text.\n"), 0),
        edit("a comment", Replace("a/sum.js", "exports", "// Adds.\nexports"), 2),
        edit("a body", Replace("a/sum.js", "a + b", "a + b + (a === b ? 1 : 0)"), 2),
        edit("data", Write("c/data.json", "[1]\n"), 1),
        edit("a test", Replace("b/t.test.js", "4", "5"), 1),
        edit("a commit", Commit, 0),
    ],
};

/// Two crates. One needs the other.
const CARGO: LocalProject = LocalProject {
    name: "cargo",
    files: &[
        ("Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"2\"\n"),
        (".gitignore", "target/\n"),
        (
            "a/Cargo.toml",
            "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[lib]\ndoctest = false\n",
        ),
        (
            "a/src/lib.rs",
            "pub fn sum(a: u32, b: u32) -> u32 {\n    a + b\n}\n\n\
             #[test]\nfn adds() {\n    assert_eq!(sum(1, 2), 3);\n}\n",
        ),
        (
            "a/tests/data.rs",
            "#[test]\nfn data() {\n    assert_eq!(std::fs::read_to_string(\"data.txt\").unwrap(), \"1\\n\");\n}\n",
        ),
        ("a/data.txt", "1\n"),
        (
            "b/Cargo.toml",
            "[package]\nname = \"b\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[lib]\ndoctest = false\n\
             [dependencies]\na = { path = \"../a\" }\n",
        ),
        ("b/src/lib.rs", "#[test]\nfn adds() {\n    assert_eq!(a::sum(2, 2), 4);\n}\n"),
        ("a/README.md", "A crate.\n"),
    ],
    edits: &[
        edit("a README", Write("a/README.md", "Another text.\n"), 0),
        edit("data", Write("a/data.txt", "2\n"), 1),
        edit("a body", Replace("a/src/lib.rs", "    a + b\n", "    a + b + u32::from(a == b)\n"), 2),
        edit("a test", Replace("b/src/lib.rs", "4", "5"), 1),
        edit("a new test", Write("b/tests/more.rs", "#[test]\nfn passes() {}\n"), 1),
        edit("a deletion", Remove("b/tests/more.rs"), 0),
        edit("a commit", Commit, 0),
    ],
};

pub(super) const LOCAL: [LocalProject; 3] = [COMMANDS, NPM, CARGO];
