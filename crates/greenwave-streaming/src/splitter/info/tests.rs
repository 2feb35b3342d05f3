//! Tests paths and languages in info strings, headings and comments.

use super::{
    Named, is_elision, is_partial_line, language_of_file, path_of_comment, path_of_heading, path_of_info,
};

#[track_caller]
fn check(info: &str, path: Option<&str>, language: Option<&str>) {
    let found = match path_of_info(info) {
        Named::Path(range) => Some(&info[range]),
        Named::No | Named::Part(_) => None,
    };
    assert_eq!(found, path, "path of {info:?}");
    if path.is_some() {
        assert_eq!(language_of_file(info), language, "language of {info:?}");
    }
}

#[track_caller]
fn check_heading(line: &str, path: Option<&str>) {
    assert_eq!(path_of_heading(line).map(|found| &line[found.path]), path, "{line:?}");
}

#[test]
fn info_strings_name_files() {
    check("rust src/lib.rs", Some("src/lib.rs"), Some("rust"));
    check("rust path=src/lib.rs", Some("src/lib.rs"), Some("rust"));
    check("rust title=\"src/my lib.rs\"", Some("src/my lib.rs"), Some("rust"));
    check("rust path=\"src/my lib.rs\"", Some("src/my lib.rs"), Some("rust"));
    check("path=src/lib.rs", Some("src/lib.rs"), None);
    check("rust,ignore {file='a.rs'}", Some("a.rs"), Some("rust,ignore"));
    check("src/lib.rs", Some("src/lib.rs"), None);
    check("Cargo.toml", Some("Cargo.toml"), None);
    check("Makefile", Some("Makefile"), None);
    check("ruby Brewfile", Some("Brewfile"), Some("ruby"));
    check("dockerfile Dockerfile", Some("Dockerfile"), Some("dockerfile"));
    check("groovy:ci/Jenkinsfile", Some("ci/Jenkinsfile"), Some("groovy"));
    check("title=Caddyfile", Some("Caddyfile"), None);
    check(".gitignore", Some(".gitignore"), None);
    check("rust:src/lib.rs", Some("src/lib.rs"), Some("rust"));
    check("../outside.rs", Some("../outside.rs"), None);
    check("text /etc/passwd", Some("/etc/passwd"), Some("text"));
    check("src/lib.rs:rust", Some("src/lib.rs"), Some("rust"));
    check("ts // src/a.ts", Some("src/a.ts"), Some("ts"));
    check(
        "tsx file=\"app/(shop)/[id]/page.tsx\" type=\"react\"",
        Some("app/(shop)/[id]/page.tsx"),
        Some("tsx"),
    );
    check("[src/app.py]", Some("src/app.py"), None);
    check("bash filename=run", Some("run"), Some("bash"));
}

#[test]
fn info_strings_without_a_file() {
    for info in [
        "",
        "rust",
        "makefile",
        "dockerfile",
        "ruby profile",
        "c++",
        "objective-c",
        "vb.net",
        "rust,should_panic",
        "python 3.11",
        "sh $ ls",
    ] {
        check(info, None, None);
    }
    // A range of lines of a file is not a file.
    check("12:15:src/lib.rs", None, None);
    check("rust https://example.com/a.rs", None, None);
    check("text ..", None, None);
}

#[test]
fn headings_name_files() {
    for line in [
        "src/lib.rs",
        "src/lib.rs:",
        "### src/lib.rs",
        "### `src/lib.rs`",
        "#### 1. `src/lib.rs`:",
        "**src/lib.rs**",
        "**src/lib.rs:**",
        "**`src/lib.rs`**",
        "`src/lib.rs`:",
        "File: src/lib.rs",
        "**File: `src/lib.rs`**",
        "**File:** `src/lib.rs`",
        "## File: src/lib.rs (new)",
        "- `src/lib.rs`",
        "Filename: `src/lib.rs`",
        "`src/lib.rs` (new file):",
        "2) src/lib.rs",
    ] {
        check_heading(line, Some("src/lib.rs"));
    }
}

#[test]
fn headings_name_files_without_an_extension() {
    for (line, path) in [
        ("### Brewfile", "Brewfile"),
        ("**`Makefile`**", "Makefile"),
        ("`docker/Dockerfile`:", "docker/Dockerfile"),
        ("File: LICENSE", "LICENSE"),
        ("2. Procfile", "Procfile"),
    ] {
        check_heading(line, Some(path));
    }
}

#[test]
fn sentences_name_no_file() {
    for line in [
        "",
        "###",
        "Add this to `Cargo.toml`:",
        "See src/lib.rs.",
        "Run `cargo test`:",
        "Done.",
        "```",
        "e.g.",
        "Profile",
        "### Usage",
        "1. First,",
    ] {
        check_heading(line, None);
    }
}

#[test]
fn info_strings_that_name_lines_of_a_file() {
    for info in [
        "12:15:src/lib.rs",
        "src/lib.rs:12-15",
        "rust src/lib.rs#L3",
        "rust src/lib.rs (1-10)",
        "rust src/lib.rs L3-L9",
        "rust file=src/lib.rs lines=3-9",
    ] {
        let Named::Part(range) = path_of_info(info) else { panic!("{info}: {:?}", path_of_info(info)) };
        assert_eq!(&info[range], "src/lib.rs", "{info}");
    }
}

#[test]
fn comments_name_files() {
    for (line, language, path) in [
        ("// src/lib.rs", "rust", Some("src/lib.rs")),
        ("# filepath: src/a.py", "python", Some("src/a.py")),
        ("// src/lib.rs", "bash", None),
        ("# README.md", "markdown", None),
        ("# README.md", "", None),
        ("# Install Node.js", "sh", None),
        ("// see src/lib.rs", "rust", None),
        ("let x = 1; // src/lib.rs", "rust", None),
        ("src/lib.rs", "rust", None),
    ] {
        assert_eq!(path_of_comment(line, language).map(|range| &line[range]), path, "{line}");
    }
}

#[test]
fn lines_that_speak_of_parts() {
    for (line, is_part) in [
        ("Add the function:", true),
        ("Replace line 3:", true),
        ("Example usage", true),
        ("The command line parser.", false),
        ("Reads the additional settings.", false),
    ] {
        assert_eq!(is_partial_line(line), is_part, "{line}");
    }
    for (line, is_left_out) in [
        ("// ... existing code ...", true),
        ("    # ... rest of the code remains unchanged", true),
        ("{/* ... other code ... */}", true),
        ("<!-- ... existing markup ... -->", true),
        ("... existing code ...", true),
        ("let x = [...existing, 1];", false),
        ("print('... existing')", false),
        ("// Loading...", false),
    ] {
        assert_eq!(is_elision(line), is_left_out, "{line}");
    }
}
