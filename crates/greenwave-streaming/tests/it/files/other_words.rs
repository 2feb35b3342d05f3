//! Words and blocks that name no file.

use super::{PY, check};

const OTHER_WORDS: &[&str] = &[
    "text/plain",
    "application/json",
    "application/vnd.ms-excel",
    "image/svg+xml",
    "c++/cli",
    "and/or",
    "Client/Server",
    "Input/Output",
    "TCP/IP",
    "I/O",
    "Node.js",
    "Vue.js",
    "Next.js",
    "node.js",
    "vue.js",
    "D3.js",
    "Three.js",
    "React.js",
    "Express.js",
    "os.path",
    "console.log",
    "array.map",
    "app.use",
    "self.name",
    "1.2.x",
    "1.2.3",
    "v2.0",
    "3.11",
    "example.com",
    "docs.rs",
    "crates.io",
    "socket.io",
    "vb.net",
    "ASP.NET",
    ".NET",
    "e.g.",
    "i.e.",
    "etc.",
    "https://example.com/a.py",
    "http://localhost:3000/index.html",
    "example.com/index.html",
    "github.com/user/repo",
    "fs.readFile()",
    "res.json()",
    "a.b.c",
    "true/false",
    "GET /users",
    "POST /a.json?x",
    "/users",
    "/api/v1/login",
    "/api/users/:id",
    "user/repo",
    "src/",
    "./",
    "..",
    "/",
    "README.md and LICENSE",
    "yes/no/maybe",
    "24/7",
    "x/y",
    "a/b testing",
    "foo::bar",
    "std::fs::read",
    "com.example.App",
    "React.FC",
    "process.env",
    "mutex.lock",
    "np.dot",
    "response.json",
    "this.http",
    "user.service",
    "vite.config",
    "object.properties",
    "array.sum",
    "Usage",
    "Installation",
    "main()",
    "*.py",
    "src/*.rs",
    "{name}.py",
    "<file>.py",
    "key: value.py",
    "python 3.11",
];

/// Words that resemble a path, on the line above, as an info string and as a first comment.
#[test]
fn words_that_resemble_paths_name_no_file() {
    for &word in OTHER_WORDS {
        for line in [
            format!("### {word}"),
            format!("{word}:"),
            format!("`{word}`"),
            format!("**`{word}`**"),
            format!("**{word}**"),
            format!("1. {word}"),
            format!("- {word}"),
        ] {
            // `{name}.py` has brackets around a part of the name, like the paths of some
            // frameworks.
            if word != "{name}.py" {
                check(&format!("{line}\n\n```js\nx\n```\n"), &[]);
                check(&format!("{line}\n```\nx\n```\n"), &[]);
            }
        }
        if !word.contains(['{', '<']) && word != "key: value.py" {
            check(
                &format!("```{word}\nx\n```\n"),
                if word == "README.md and LICENSE" { &[("README.md", "x\n")] } else { &[] },
            );
            check(&format!("```js\n// {word}\nx\n```\n"), &[]);
        }
        if !word.contains(['{', '<', ' ', ':']) {
            for language in ["js", "text", "http", "console"] {
                check(&format!("```{language} {word}\nx\n```\n"), &[]);
            }
        }
    }
}

#[test]
fn sentences_name_no_file() {
    for line in [
        "Here is a new version of `src/app.py`:",
        "Add this to `src/app.py`:",
        "In `src/app.py`:",
        "Update `src/app.py`:",
        "Edit src/app.py:",
        "Open `src/app.py` and change",
        "See src/app.py.",
        "Run `python src/app.py`:",
        "The file `src/app.py` should be:",
        "`src/app.py` imports `b.py`:",
        "src/app.py and b.py",
        "Then in src/app.py, add:",
        "### Changes to `src/app.py`",
        "### Update `src/app.py`",
        "### `src/app.py` (excerpt)",
        "### `src/app.py` (lines 10-20)",
        "**src/app.py** - changes only",
        "### src/app.py (before)",
        "### Usage of `src/app.py`",
        "Delete `src/app.py`:",
        "### Testing src/app.py",
        "`src/app.py`, `src/b.py`:",
        "- src/app.py: add a function",
        "| src/app.py | x |",
        "├── src/app.py",
        "src/app.py -> src/b.py",
        "from src/app.py",
    ] {
        check(&format!("{line}\n\n```python\n{PY}```\n"), &[]);
        check(&format!("{line}\n```python\n{PY}```\n"), &[]);
    }
}

/// A block below a file name is often about the file.
#[test]
fn blocks_in_another_language_are_not_the_file() {
    for language in [
        "bash",
        "sh",
        "console",
        "shell",
        "zsh",
        "powershell",
        "output",
        "diff",
        "json",
        "sql",
        "rust",
        "javascript",
    ] {
        check(&format!("### `src/app.py`\n\n```{language}\npython src/app.py\n```\n"), &[]);
        check(&format!("```{language}\n# src/app.py\npython src/app.py\n```\n"), &[]);
    }
    for (language, path) in [
        ("bash", "setup.sh"),
        ("sh", ".env"),
        ("bash", "Dockerfile"),
        ("text", "src/app.py"),
        ("", "src/app.py"),
        ("json", ".babelrc"),
        ("ts", "a.vue"),
        ("js", "package.json"),
        ("html", "a.svelte"),
        ("xml", "a.csproj"),
        ("yml", "a.yaml"),
        ("typescript", "a.tsx"),
        ("c", "a.h"),
        ("jsonc", "tsconfig.json"),
        ("python", "BUILD.bazel"),
        ("Python", "a.py"),
    ] {
        check(&format!("### `{path}`\n\n```{language}\nx\n```\n"), &[(path, "x\n")]);
    }
}

#[test]
fn one_heading_names_one_block() {
    check("### a.py\n```python\nx\n```\n\n```python\ny\n```\n", &[("a.py", "x\n")]);
    check("### a.py\n```bash\nx\n```\n```python\ny\n```\n", &[]);
    check("### a.py\n```python\nx\n```\n### b.py\n```python\ny\n```\n", &[("a.py", "x\n"), ("b.py", "y\n")]);
    check("### a.py\n### b.py\n```python\ny\n```\n", &[("b.py", "y\n")]);
    check("### a.py\n\n\n```python\nx\n```\n", &[]);
    check("### a.py\n```python b.py\nx\n```\n", &[("b.py", "x\n")]);
}
