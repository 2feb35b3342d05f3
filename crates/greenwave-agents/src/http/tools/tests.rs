//! Tests of the tools on real directories.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn run(directory: &Dir, name: &str, arguments: &str) -> ToolResult {
    super::run(directory, Withheld::default(), name, arguments)
}

fn directory() -> (tempfile::TempDir, Dir) {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    for directory in ["src/deep", ".git", "node_modules/x"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (path, text) in [
        ("src/a.rs", "fn a() {}\nfn b() {}\n"),
        ("src/deep/c.rs", "fn c() {} // fn a"),
        (".git/config", "fn a"),
        ("node_modules/x/i.js", "fn a"),
        ("run.sh", "#!/bin/sh\n"),
    ] {
        fs::write(root.join(path), text).unwrap();
    }
    fs::write(root.join("binary"), b"\xff\0").unwrap();
    fs::set_permissions(root.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("/etc", root.join("outside")).unwrap();
    let opened = Dir::open(root).unwrap();
    (temporary, opened)
}

fn text(directory: &Dir, name: &str, arguments: &Value) -> String {
    run(directory, name, &arguments.to_string()).text
}

#[test]
fn files_are_listed_read_and_searched() {
    let (_temporary, dir) = directory();
    assert_eq!(text(&dir, "list", &json!({})), "binary\nnode_modules/\noutside\nrun.sh\nsrc/");
    assert_eq!(text(&dir, "list", &json!({ "path": "./src/" })), "a.rs\ndeep/");
    assert_eq!(text(&dir, "read", &json!({ "path": "src/a.rs" })), "fn a() {}\nfn b() {}\n");
    let second = json!({ "path": "src/a.rs", "from": 2, "lines": 5 });
    assert_eq!(text(&dir, "read", &second), "[lines 2 to 2 of 2]\nfn b() {}\n");
    let found = "src/a.rs:1: fn a() {}\nsrc/deep/c.rs:1: fn c() {} // fn a";
    assert_eq!(text(&dir, "search", &json!({ "text": "fn a" })), found);
    assert_eq!(text(&dir, "search", &json!({ "text": "fn b", "path": "src/a.rs" })), "src/a.rs:2: fn b() {}");
    assert_eq!(text(&dir, "search", &json!({ "text": "fn z" })), "[not found]");
}

#[test]
fn files_are_changed() {
    let (temporary, dir) = directory();
    let written = run(&dir, "write", r#"{"path": "new/x/y.txt", "content": "one"}"#);
    assert_eq!((written.text.as_str(), written.touched.as_deref()), ("written", Some("new/x/y.txt")));
    assert_eq!(fs::read_to_string(temporary.path().join("new/x/y.txt")).unwrap(), "one");
    let edit = json!({ "path": "src/a.rs", "search": "fn b", "replace": "fn d" });
    assert_eq!(text(&dir, "edit", &edit), "edited");
    assert_eq!(fs::read_to_string(temporary.path().join("src/a.rs")).unwrap(), "fn a() {}\nfn d() {}\n");
    assert_eq!(text(&dir, "write", &json!({ "path": "run.sh", "content": "#!/bin/bash\n" })), "written");
    let mode = fs::metadata(temporary.path().join("run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "a program stays executable");
    assert_eq!(text(&dir, "delete", &json!({ "path": "src/a.rs" })), "deleted");
    assert!(!temporary.path().join("src/a.rs").exists());
}

#[test]
fn nothing_outside_of_the_directory_is_read_or_changed() {
    let (temporary, dir) = directory();
    for path in
        ["/etc/passwd", "../x", "src/../../x", "outside/passwd", ".git/config", ".GIT/config", "a\0b", ""]
    {
        for (name, arguments) in [
            ("read", json!({ "path": path })),
            ("write", json!({ "path": path, "content": "x" })),
            ("edit", json!({ "path": path, "search": "fn", "replace": "" })),
            ("delete", json!({ "path": path })),
        ] {
            let result = run(&dir, name, &arguments.to_string());
            assert!(result.is_error && result.touched.is_none(), "{name} {path:?}: {}", result.text);
        }
    }
    for name in ["list", "search"] {
        let result = run(&dir, name, r#"{"path": "outside", "text": "root"}"#);
        assert!(result.is_error, "{name}: {}", result.text);
    }
    // A link is replaced by nothing, and its target stays.
    assert!(run(&dir, "write", r#"{"path": "outside", "content": "x"}"#).is_error);
    assert_eq!(fs::read_to_string(temporary.path().join(".git/config")).unwrap(), "fn a");
}

#[test]
fn mistakes_are_results_that_the_model_can_act_on() {
    let (_temporary, dir) = directory();
    for (name, arguments, expected) in [
        ("fly", "{}", "unknown tool `fly`: expected one of list, search, read, edit, write, delete"),
        ("read", "[]", "the arguments are not a JSON object"),
        ("read", "{\"path\": ", "the arguments are not a JSON object"),
        ("read", "", "missing argument `path`: expected a string"),
        ("read", r#"{"path": "no.rs"}"#, "cannot read \"no.rs\": "),
        ("read", r#"{"path": "binary"}"#, "cannot read \"binary\": it is not UTF-8 text"),
        ("read", r#"{"path": "src/a.rs", "from": -1}"#, "invalid value for `from`: expected a whole number"),
        (
            "edit",
            r#"{"path": "src/a.rs", "search": "fn z", "replace": ""}"#,
            "the text is not in \"src/a.rs\"",
        ),
        ("edit", r#"{"path": "src/a.rs", "search": "fn", "replace": ""}"#, "is in \"src/a.rs\" 2 times"),
        ("edit", r#"{"path": "src/a.rs", "search": "", "replace": ""}"#, "expected a text that is not empty"),
        ("search", r#"{"text": ""}"#, "invalid value for `text`: expected a text on one line"),
        ("write", r#"{"path": "src", "content": ""}"#, "cannot write \"src\": it is not a file"),
    ] {
        let result = run(&dir, name, arguments);
        assert!(result.is_error && result.text.contains(expected), "{name} {arguments}: {}", result.text);
    }
    for number in [0, usize::MAX] {
        let result =
            run(&dir, "read", &json!({ "path": "src/a.rs", "from": number, "lines": number }).to_string());
        assert!(!result.is_error, "{}", result.text);
    }
}

#[test]
fn long_results_are_cut_at_a_line() {
    let (temporary, dir) = directory();
    fs::write(temporary.path().join("long"), "line of text\n".repeat(5000)).unwrap();
    let result = text(&dir, "read", &json!({ "path": "long", "lines": 5000 }));
    assert!(result.len() < RESULT_BYTES_MAX + 20 && result.ends_with("line of text\n[cut off]"));
    assert!(text(&dir, "read", &json!({ "path": "long" })).starts_with("[lines 1 to 1000 of 5000]\n"));
}

#[test]
fn definitions_are_schemas_with_their_required_parameters() {
    let all: Vec<_> = definitions(true).collect();
    assert_eq!((all.len(), definitions(false).count()), (7, 6));
    let (name, _, schema) = &all[2];
    assert_eq!(
        (*name, &schema["required"], &schema["properties"]["from"]["type"]),
        ("read", &json!(["path"]), &json!("integer"))
    );
}

#[test]
fn files_that_are_withheld_are_listed_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    for path in [".env", "a.txt", "sub/.env"] {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "KEY=hidden\n").unwrap();
    }
    let dir = Dir::open(directory.path()).unwrap();
    let withheld = Withheld::new(|path| path.ends_with(".env"));
    let run = |name: &str, arguments: Value| super::run(&dir, withheld, name, &arguments.to_string());
    for path in [".env", "sub/.env", "./.env", "sub/../.env"] {
        for (name, more) in [("read", json!({})), ("search", json!({ "text": "KEY" }))] {
            let mut arguments = more;
            arguments["path"] = path.into();
            let result = run(name, arguments);
            assert!(result.is_error && !result.text.contains("hidden"), "{name} {path}: {result:?}");
        }
        let result = run("edit", json!({ "path": path, "search": "KEY", "replace": "X" }));
        assert!(result.is_error, "{path}: {result:?}");
    }
    assert_eq!(run("search", json!({ "text": "KEY" })).text, "a.txt:1: KEY=hidden");
    assert_eq!(run("search", json!({ "text": "KEY", "path": "sub" })).text, "[not found]");
    assert_eq!(run("list", json!({ "path": "sub" })).text, ".env");
}
