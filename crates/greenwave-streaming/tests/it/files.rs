//! Tests file extraction from model responses in the style of several tools (aider, bolt, cline,
//! plandex, gpt-engineer, cursor, continue, v0, Copilot and plain chat), including responses
//! without files. Each response is fed whole, byte by byte, in pairs of bytes and in random chunks.

use greenwave_streaming::conformance::{UnitRecord, chunked, units};
use greenwave_streaming::{Files, UnitKind};

/// Paths and contents.
pub(crate) type Found<'a> = &'a [(&'a str, &'a str)];

const SEED: u64 = 0x5EED;

fn files(seen: &[UnitRecord]) -> Vec<(String, String)> {
    let files = seen.iter().filter(|unit| unit.kind == UnitKind::File && unit.complete);
    files
        .map(|unit| {
            (unit.path.clone().expect("a file has a path"), String::from_utf8_lossy(&unit.bytes).into_owned())
        })
        .collect()
}

/// Checks that all chunkings of a response give the same units, and returns them.
#[track_caller]
fn seen(response: &str) -> Vec<UnitRecord> {
    let (whole, error) = units(Files::default(), [response.as_bytes()]);
    assert!(error.is_none(), "{error:?} of {response:?}");
    let mut state = SEED ^ response.len() as u64;
    let mut random = || {
        // Knuth's LCG: chunks of up to seven bytes.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (state >> 33) as usize % 7
    };
    let ways: [&mut dyn FnMut() -> usize; 3] = [&mut || 1, &mut || 2, &mut random];
    for sizes in ways {
        let (cut, error) = units(Files::default(), chunked(response.as_bytes(), sizes));
        assert_eq!((cut, error.is_none()), (whole.clone(), true), "seed {SEED:#x}, {response:?}");
    }
    whole
}

#[track_caller]
pub(crate) fn check(response: &str, expected: Found<'_>) {
    let expected: Vec<_> = expected.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
    assert_eq!(files(&seen(response)), expected, "{response}");
    // Repeat with CRLF line endings.
    if !response.contains('\r') {
        let crlf: Vec<_> =
            expected.iter().map(|(path, text)| (path.clone(), text.replace('\n', "\r\n"))).collect();
        assert_eq!(files(&seen(&response.replace('\n', "\r\n"))), crlf, "{response} in CRLF");
    }
}

const PY: &str = "import sys\n\n\ndef main():\n    print(sys.argv)\n";

const LINES_WITH_A_PATH: &[&str] = &[
    "src/app.py",
    "src/app.py:",
    "`src/app.py`",
    "`src/app.py`:",
    "**src/app.py**",
    "**src/app.py:**",
    "**src/app.py**:",
    "**`src/app.py`**",
    "`**src/app.py**`",
    "*src/app.py*",
    "__src/app.py__",
    "# src/app.py",
    "## src/app.py ##",
    "### src/app.py",
    "### `src/app.py`",
    "#### **src/app.py**",
    "#### `src/app.py`:",
    "### src/app.py (new)",
    "### `src/app.py` (new file)",
    "### `src/app.py` - entry point",
    "### src/app.py – the entry point",
    "### `src/app.py` — entry point of it all",
    "### `src/app.py`: the entry point",
    "**src/app.py** - the entry point",
    "**src/app.py** (entry point):",
    "### 1. src/app.py",
    "### 1. `src/app.py`",
    "### 1) `src/app.py`:",
    "1. src/app.py",
    "2) `src/app.py`",
    "3. **src/app.py**",
    "**1. src/app.py**",
    "**1. `src/app.py`**",
    "### 1.2 src/app.py",
    "12. `src/app.py`:",
    "- src/app.py",
    "* src/app.py",
    "+ `src/app.py`",
    "- **src/app.py**:",
    "* `src/app.py`:",
    "• src/app.py",
    "- [ ] `src/app.py`",
    "- [x] src/app.py",
    "### 📄 src/app.py",
    "📄 `src/app.py`",
    "📁 **src/app.py**",
    "1️⃣ `src/app.py`",
    "### 1️⃣ src/app.py",
    "✅ src/app.py",
    "➡️ `src/app.py`:",
    "### ⚙️ `src/app.py` ✨",
    "File: src/app.py",
    "file: src/app.py",
    "FILE: src/app.py",
    "File: `src/app.py`",
    "**File:** `src/app.py`",
    "**File**: `src/app.py`",
    "**File: `src/app.py`**",
    "**File: src/app.py**",
    "### File: src/app.py",
    "### File: `src/app.py` (new)",
    "### File 1: `src/app.py`",
    "File 2 of 3: src/app.py",
    "Filename: src/app.py",
    "**Filename:** src/app.py",
    "File name: `src/app.py`",
    "File path: `src/app.py`",
    "- file_path: src/app.py",
    "file_path: src/app.py",
    "filepath: src/app.py",
    "path: src/app.py",
    "Path: `src/app.py`",
    "**Path:** src/app.py",
    "- path: `src/app.py`",
    "New file: src/app.py",
    "**New file: `src/app.py`**",
    "### New file `src/app.py`",
    "Create file: src/app.py",
    "**Create file: src/app.py**",
    "**Create file: `src/app.py`**",
    "### Create `src/app.py`",
    "### Creating src/app.py",
    "Create a new file called `src/app.py`:",
    "### Step 1: Create src/app.py",
    "### Step 2: Create `src/app.py`",
    "### Step 3 - Create the file `src/app.py`",
    "**Step 1: `src/app.py`**",
    "### Add `src/app.py`",
    "Updated file: `src/app.py`",
    "=== src/app.py ===",
    "==== src/app.py",
    "--- src/app.py ---",
    "*** src/app.py ***",
    "─── src/app.py ───",
    "[src/app.py]",
    "[src/app.py](src/app.py)",
    "### [`src/app.py`](src/app.py)",
    "\"src/app.py\"",
    "'src/app.py':",
    "<summary>src/app.py</summary>",
    "<details><summary><b>src/app.py</b></summary>",
    "<h3>src/app.py</h3>",
    "<!-- src/app.py -->",
    "// src/app.py",
    "src/app.py\n----------",
    "src/app.py\n==========",
    "### src/app.py\n\n---",
    "> src/app.py",
];

/// Lines above a block that name `src/app.py`, with and without a blank line after them.
#[test]
fn lines_above_that_name_a_file() {
    for &line in LINES_WITH_A_PATH {
        for between in ["\n", "\n\n"] {
            check(
                &format!("Here it is.\n\n{line}{between}```python\n{PY}```\n\nThat is all.\n"),
                &[("src/app.py", PY)],
            );
        }
    }
}

const PATHS: &[&str] = &[
    "Makefile",
    "Dockerfile",
    "docker/Dockerfile.dev",
    "LICENSE",
    ".gitignore",
    ".env.example",
    ".github/workflows/ci.yml",
    ".eslintrc.json",
    ".prettierrc",
    "Cargo.toml",
    "package.json",
    "main.rs",
    "index.html",
    "App.tsx",
    "a.b.test.ts",
    "__init__.py",
    "src/pkg/__init__.py",
    "app/(shop)/page.tsx",
    "app/[id]/page.tsx",
    "app/[...slug]/route.ts",
    "app/@modal/(.)photo/page.tsx",
    "src/routes/+page.svelte",
    "src/$id.tsx",
    "web/a.x-y",
    "go.mod",
    "k8s/deploy.yaml",
    "db/migrations/001_init.sql",
    "./src/a.py",
    "../common/b.py",
    "scripts/build",
    "src\\win\\a.cs",
    "C:/src/a.py",
    "node/Node.js",
    "text/main.c",
    "image/logo.svg",
    "v1/users.json",
    "docs/1.2/guide.md",
    "été/naïve.py",
    "common.config.js",
];

/// Various names, on their own line, in bold and as code.
#[test]
fn all_kinds_of_paths_name_a_file() {
    for &path in PATHS {
        for line in [
            path.to_owned(),
            format!("**{path}**"),
            format!("### `{path}`"),
            format!("File: {path}"),
            format!("- `{path}`:"),
        ] {
            // A name may start like bold text.
            check(&format!("{line}\n```\nx\n```\n"), &[(path, "x\n")]);
        }
        check(&format!("```text file=\"{path}\"\nx\n```\n"), &[(path, "x\n")]);
    }
    for line in ["`a.x-y`", "**`a.x-y`**:", "File: a.x-y"] {
        check(&format!("{line}\n```\nx\n```\n"), &[("a.x-y", "x\n")]);
        check(&format!("{line}\n```text\nx\n```\n"), &[("a.x-y", "x\n")]);
    }
    check("```text a.x-y\nx\n```\n", &[("a.x-y", "x\n")]);
    check("### `button.is-large`\n```css\nx\n```\n", &[]);
    check("### button.is-large\n```\nx\n```\n", &[]);
    for quoted in
        ["`docs/read me.md`", "### `docs/read me.md`", "**`docs/read me.md`**", "File: \"docs/read me.md\""]
    {
        check(&format!("{quoted}\n\n```\nx\n```\n"), &[("docs/read me.md", "x\n")]);
    }
}

#[test]
fn info_strings_that_name_a_file() {
    for info in [
        "python src/app.py",
        "python:src/app.py",
        "py:src/app.py",
        "src/app.py",
        "src/app.py:python",
        "python path=src/app.py",
        "python path=\"src/app.py\"",
        "python file=src/app.py",
        "python file='src/app.py'",
        "python filename=src/app.py",
        "python filename=\"src/app.py\" showLineNumbers",
        "python title=\"src/app.py\"",
        "python title=\"src/app.py\" {1,3}",
        "python name=src/app.py",
        "python {file=src/app.py}",
        "{.python file=src/app.py}",
        "python filepath=src/app.py",
        "python file_path=\"src/app.py\"",
        "python filepath: src/app.py",
        "python file: src/app.py",
        "python // src/app.py",
        "python # src/app.py",
        "python [src/app.py]",
        "python \"src/app.py\"",
        "python (src/app.py)",
        "[src/app.py]",
        "file:src/app.py",
        "path:src/app.py",
        "filename:src/app.py",
        "python `src/app.py",
        "type=\"code\" project=\"x\" file=\"src/app.py\"",
    ] {
        let fence = if info.contains('`') { "~~~" } else { "```" };
        check(&format!("{fence}{info}\n{PY}{fence}\n"), &[("src/app.py", PY)]);
        check(&format!("Text.\n{fence} {info} \n{PY}{fence}\n"), &[("src/app.py", PY)]);
    }
}

#[test]
fn a_path_without_an_extension_follows_a_language() {
    for path in ["src/main", "src/f1", "src/a/b", "lib/tool", "cmd/server/run", "./run", "../run", "bin/tool"]
    {
        check(&format!("```text {path}\nx\n```\n"), &[(path, "x\n")]);
    }
    for info in [
        "http application/json",
        "text main",
        "text a/b/c",
        "js a/b testing",
        "text src/",
        "http GET /users",
        "console src/main",
        "output src/main",
        "text src/main src/other",
    ] {
        check(&format!("```{info}\nx\n```\n"), &[]);
    }
}

/// The comment remains part of the content.
#[test]
fn leading_comments_name_a_file() {
    for (language, path, comment) in [
        ("python", "src/app.py", "# src/app.py"),
        ("python", "src/app.py", "# filepath: src/app.py"),
        ("python", "src/app.py", "# File: src/app.py"),
        ("py", "app.py", "# app.py"),
        ("", "src/app.py", "# src/app.py"),
        ("typescript", "src/app.ts", "// src/app.ts"),
        ("ts", "src/app.ts", "// filepath: src/app.ts"),
        ("tsx", "src/App.tsx", "// File: src/App.tsx"),
        ("javascript", "server.js", "// server.js"),
        ("javascript", "lib/a.js", "/* lib/a.js */"),
        ("js", "lib/a.js", "/** lib/a.js */"),
        ("css", "styles.css", "/* styles.css */"),
        ("html", "index.html", "<!-- index.html -->"),
        ("rust", "src/lib.rs", "// src/lib.rs"),
        ("rust", "src/lib.rs", "//! src/lib.rs"),
        ("go", "main.go", "// main.go"),
        ("sql", "db/schema.sql", "-- db/schema.sql"),
        ("ini", "app.ini", "; app.ini"),
        ("lua", "init.lua", "-- init.lua"),
        ("tex", "main.tex", "% main.tex"),
        ("yaml", "k8s/a.yaml", "# k8s/a.yaml"),
        ("toml", "Cargo.toml", "# Cargo.toml"),
        ("dockerfile", "Dockerfile", "# Dockerfile"),
        ("makefile", "Makefile", "# Makefile"),
        ("bash", "run.sh", "# run.sh"),
        ("bash", ".env", "# .env"),
        ("python", "src/app.py", "# src/app.py (new)"),
        ("python", "src/app.py", "# src/app.py - entry point"),
        ("python", "src/app.py", "\"\"\"src/app.py\"\"\""),
        ("jsx", "src/A.jsx", "{/* src/A.jsx */}"),
        ("java", "src/A.java", "// src/A.java"),
        ("cpp", "a.hpp", "// a.hpp"),
        ("ruby", "a.rb", "# a.rb"),
        ("python", "src/app.py", "# === src/app.py ==="),
        ("markdown", "README.md", "<!-- README.md -->"),
        ("vue", "src/App.vue", "<!-- src/App.vue -->"),
    ] {
        let content = format!("{comment}\nx = 1\n");
        check(&format!("Sure.\n\n```{language}\n{content}```\n"), &[(path, &content)]);
    }
    check(
        "```python\n#!/usr/bin/env python3\n# tools/run.py\nx\n```\n",
        &[("tools/run.py", "#!/usr/bin/env python3\n# tools/run.py\nx\n")],
    );
    check("```php\n<?php\n// src/A.php\nx\n```\n", &[("src/A.php", "<?php\n// src/A.php\nx\n")]);
    check("```json\n// package.json\n{}\n```\n", &[("package.json", "{}\n")]);
    // The heading has the name, the comment also the directory.
    check("### app.py\n```python\n# src/app.py\nx\n```\n", &[("src/app.py", "# src/app.py\nx\n")]);
    check("### app.py\n```python\n# src/other.py\nx\n```\n", &[("app.py", "# src/other.py\nx\n")]);
}

#[test]
fn a_line_of_text_between_a_heading_and_its_block() {
    for (heading, text) in [
        ("### File: src/app.py", "The entry point of the program."),
        ("### `src/app.py`", "Reads arguments and starts."),
        ("**src/app.py**", "Full content below the line above."),
        ("### src/app.py", "This module holds the main loop:"),
        ("**File:** `src/app.py`", "It is small."),
        ("## 1. src/app.py", "Main module."),
        ("Create file: src/app.py", "Main module."),
    ] {
        let is_file = !text.contains("below");
        let expected: Found<'_> = if is_file { &[("src/app.py", PY)] } else { &[] };
        for between in ["\n", "\n\n"] {
            check(&format!("{heading}{between}{text}{between}```python\n{PY}```\n"), expected);
        }
    }
    for text in [
        "Add this at the end:",
        "Change the function to:",
        "Run it:",
        "Example usage:",
        "Output:",
        "Only the changed lines:",
        "Replace line 3 with:",
        "Insert after the imports:",
        "Here is a snippet:",
        "The relevant part:",
        "Update the import:",
    ] {
        check(&format!("### src/app.py\n\n{text}\n\n```python\n{PY}```\n"), &[]);
    }
    check(&format!("### src/app.py\n\nOne.\n\nTwo.\n\n```python\n{PY}```\n"), &[]);
    check(&format!("src/app.py\n\nA plain line of text.\n\n```python\n{PY}```\n"), &[]);
}

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

#[test]
fn files_in_lists_and_quotes() {
    check(
        "1. **src/a.py**\n\n   ```python\n   x\n     y\n   ```\n\n2. `src/b.py`\n\n   ```python\n   z\n   ```\n",
        &[("src/a.py", "x\n  y\n"), ("src/b.py", "z\n")],
    );
    check("1. **src/a.py**\n\n    ```python\n    x\n    ```\n", &[("src/a.py", "x\n")]);
    check("- `src/a.py`:\n    ```python\n    x\n\n    y\n    ```\n- done\n", &[("src/a.py", "x\n\ny\n")]);
    check("* src/a.py\n  ```python\n  x\n  ```\n", &[("src/a.py", "x\n")]);
    check("10. src/a.py\n\n    ```python\n    x\n    ```\n", &[("src/a.py", "x\n")]);
    check("- one\n  - `src/a.py`\n\n    ```python\n    x\n    ```\n", &[("src/a.py", "x\n")]);
    check("- ```python src/a.py\n  x\n  ```\n", &[("src/a.py", "x\n")]);
    // The content is indented less than its list item.
    check("1. `src/a.py`\n   ```python\nx\n  y\n   ```\nAfter.\n", &[("src/a.py", "x\n  y\n")]);
    check(
        "1. `src/a.py`\n   ```python\nx\n```\n\n### b.py\n```python\ny\n```\n",
        &[("src/a.py", "x\n"), ("b.py", "y\n")],
    );
    check("> **src/a.py**\n> ```python\n> x\n>   y\n>\n> z\n> ```\n", &[("src/a.py", "x\n  y\n\nz\n")]);
    check("> - src/a.py\n>   ```python\n>   x\n>   ```\n", &[("src/a.py", "x\n")]);
    check("> ```python src/a.py\n> x\nAfter.\n", &[]);
    check("\t```python src/a.py\n\tx\n\t```\n", &[]);
}

#[test]
fn files_in_elements() {
    let artifact = "<boltArtifact id=\"x\" title=\"X\">\n  <boltAction type=\"file\" filePath=\"src/a.ts\">const a = '<b>';\nlet c;\n  </boltAction>\n  \
                    <boltAction type=\"file\" filePath=\"package.json\">\n{\n  \"a\": 1\n}\n</boltAction>\n  <boltAction type=\"shell\">npm run a.ts</boltAction>\n</boltArtifact>\n";
    check(artifact, &[("src/a.ts", "const a = '<b>';\nlet c;\n"), ("package.json", "{\n  \"a\": 1\n}\n")]);
    check("<boltAction type=\"shell\" filePath=\"a.sh\">\nx\n</boltAction>\n", &[]);
    check("<boltAction filePath='a.ts' type='file' contentType='x'>y</boltAction>\n", &[("a.ts", "y")]);
    check(
        "<write_to_file>\n<path>src/a.py</path>\n<content>\nx\n  y\n</content>\n<line_count>2</line_count>\n</write_to_file>\n",
        &[("src/a.py", "x\n  y\n")],
    );
    check("<write_to_file><path>a.py</path><content>x</content></write_to_file>\n", &[("a.py", "x")]);
    check("<write_to_file>\n  <path>\n", &[]);
    check("<read_file>\n<path>src/a.py</path>\n</read_file>\nText.\n", &[]);
    check(
        "<replace_in_file>\n<path>src/a.py</path>\n<diff>\n------- SEARCH\nx\n=======\ny\n+++++++ REPLACE\n</diff>\n</replace_in_file>\n",
        &[],
    );
    check(
        "<PlandexBlock lang=\"go\" path=\"cmd/main.go\">\npackage main\n\n```\n</PlandexBlock>\nDone.\n",
        &[("cmd/main.go", "package main\n\n```\n")],
    );
    check(
        "- file_path: cmd/main.go\n\n<PlandexBlock lang=\"go\" path=\"cmd/main.go\">\nx\n</PlandexBlock>\n",
        &[("cmd/main.go", "x\n")],
    );
    check(
        "<file path=\"a.py\">\nx\n</file>\n<file name=\"b.py\">\ny\n</file>\n",
        &[("a.py", "x\n"), ("b.py", "y\n")],
    );
}

#[test]
fn files_in_elements_with_fences_and_other_tags() {
    check("<file path=\"a.py\">\n```python\nx\n```\n</file>\n", &[("a.py", "x\n")]);
    check("<file path=\"README.md\">\n```\nx\n```\n</file>\n", &[("README.md", "```\nx\n```\n")]);
    check("<create_file path=\"a.py\">x\ny\n</create_file>\n", &[("a.py", "x\ny\n")]);
    check(
        "<dyad-write path=\"src/A.tsx\" description=\"a > b\">\nx\n</dyad-write>\n",
        &[("src/A.tsx", "x\n")],
    );
    check("<lov-write file_path=\"src/A.tsx\">\nx\n</lov-write>\n", &[("src/A.tsx", "x\n")]);
    check("<file>\n<path>a.py</path>\n<content>\nx\n</content>\n</file>\n", &[("a.py", "x\n")]);
    check(
        "<document index=\"1\">\n<source>a.py</source>\n<document_content>\nx\n</document_content>\n</document>\n",
        &[("a.py", "x\n")],
    );
    check("<file>\n<name>a.py</name>\n<source>\nx\n</source>\n</file>\n", &[("a.py", "x\n")]);
    for tag in ["source", "code", "codeblock", "sourcecode", "pre"] {
        check(&format!("src/a.py\n<{tag}>\nx\n```\ny\n</{tag}>\n"), &[("src/a.py", "x\n```\ny\n")]);
        check(&format!("Text.\n<{tag}>\nx\n</{tag}>\n"), &[]);
    }
    check(
        "<source file=\"a.py\">\nx\n</source>\n<code path=\"b.py\">\ny\n</code>\n",
        &[("a.py", "x\n"), ("b.py", "y\n")],
    );
    check("- src/a.py:\n\n<PlandexBlock lang=\"python\">\nx\n</PlandexBlock>\n", &[("src/a.py", "x\n")]);
    check("<path>a.py</path>\n```python\nx\n```\n", &[("a.py", "x\n")]);
    check("<file path=\"a.py\"/>\n```\nx\n```\n", &[]);
    check("<file path=\"a.py\">\nx\n", &[]);
    check("<file path=\"text/plain\">\nx\n</file>\n", &[]);
    check("<answer>\n```python a.py\nx\n```\n</answer>\n", &[("a.py", "x\n")]);
    check("```xml\n<file path=\"a.py\">\nx\n</file>\n```\n", &[]);
    check(
        "<details>\n<summary>src/a.py</summary>\n\n```python\nx\n```\n\n</details>\n",
        &[("src/a.py", "x\n")],
    );
}

#[track_caller]
fn check_kinds(response: &str, expected: &[UnitKind]) {
    let found: Vec<_> = seen(response).iter().map(|unit| unit.kind).collect();
    assert_eq!(found, expected, "{response}");
}

#[test]
fn edits_and_diffs_have_their_own_kinds() {
    let edit = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n";
    for response in [
        format!("src/app.py\n```python\n{edit}```\n"),
        format!("```python\nsrc/app.py\n{edit}```\n"),
        format!("```python src/app.py\n{edit}```\n"),
        format!("src/app.py\n{edit}"),
        format!("src/app.py\n```\n{edit}{edit}```\n"),
        format!("### `src/app.py`\n\n```python\nx\n{edit}y\n```\n"),
        format!("src/app.py\n{}", edit.replace("a\n", "```\n")),
        "src/app.py\n```\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> main\n```\n".to_owned(),
        "src/app.py\n```\n------- SEARCH\na\n=======\nb\n+++++++ REPLACE\n```\n".to_owned(),
        "```ts src/a.ts\n// ... existing code ...\nx\n```\n".to_owned(),
        "### src/a.py\n```python\nx\n# ... rest of the code remains unchanged ...\n```\n".to_owned(),
        "```12:15:src/app.py\nx\n```\n".to_owned(),
        "```python src/app.py (1-10)\nx\n```\n".to_owned(),
        "```ts src/a.ts#L3-L9\nx\n```\n".to_owned(),
    ] {
        check_kinds(&response, &[UnitKind::Edit]);
    }
    let hunk = "--- a/src/app.py\n+++ b/src/app.py\n@@ -1 +1 @@\n-a\n+b\n";
    for response in [
        format!("```diff\n{hunk}```\n"),
        format!("src/app.py\n```diff\n{hunk}```\n"),
        format!("```\n{hunk}```\n"),
        format!("### src/app.py\n```python\n{hunk}```\n"),
        hunk.to_owned(),
        format!("diff --git a/x b/x\nindex 1..2\n{hunk}\nThat is it.\n"),
        "```diff src/app.py\n-a\n+b\n```\n".to_owned(),
        "src/app.py\n```\n@@ -1 +1 @@\n-a\n+b\n```\n".to_owned(),
        "*** Begin Patch\n*** Update File: src/app.py\n-a\n+b\n*** End Patch\n".to_owned(),
        "```\n*** Begin Patch\n*** Add File: a.py\n+b\n*** End Patch\n```\n".to_owned(),
        "```patch\n-a\n```\n".to_owned(),
    ] {
        check_kinds(&response, &[UnitKind::Diff]);
    }
    // Files that resemble edits or diffs.
    check("a.py\n```python\nx = '<<<<<<<'\n=======\n```\n", &[("a.py", "x = '<<<<<<<'\n=======\n")]);
    check("a.md\n```md\nTitle\n=====\n\n- a\n+ b\n```\n", &[("a.md", "Title\n=====\n\n- a\n+ b\n")]);
    check(
        "a.py\n```python\n# wait...\nprint('existing')\n```\n",
        &[("a.py", "# wait...\nprint('existing')\n")],
    );
    let (found, _) = units(Files::default(), [format!("src/app.py\n{edit}\n\n{hunk}").as_bytes()]);
    assert_eq!(
        found.iter().map(|unit| (unit.kind, unit.path.clone())).collect::<Vec<_>>(),
        [(UnitKind::Edit, None), (UnitKind::Diff, None)]
    );
}

#[test]
fn fences_inside_files() {
    // Paired.
    let readme = "# A\n\n```bash\nnpm i\n```\n\nText.\n";
    check(&format!("```markdown README.md\n{readme}```\n\nDone.\n"), &[("README.md", readme)]);
    check(
        &format!("### README.md\n```md\n{readme}```\n\n### a.py\n```python\nx\n```\n"),
        &[("README.md", readme), ("a.py", "x\n")],
    );
    check(&format!("README.md\n```\n{readme}```\n"), &[("README.md", readme)]);
    check(
        &format!("README.md\n```\n{readme}```\n```python a.py\nx\n```\n"),
        &[("README.md", readme), ("a.py", "x\n")],
    );
    let two = "```js\na\n```\n```py\nb\n```\n";
    check(&format!("```md a.md\n{two}```\n"), &[("a.md", two)]);
    // A bare fence before the end.
    let bare = "# A\n\n```\nnpm i\n```\n";
    check(&format!("```md README.md\n{bare}```\n"), &[("README.md", bare)]);
    check(
        &format!("```md README.md\n{readme}```\nx\n```\n```\n\nDone.\n"),
        &[("README.md", &format!("{readme}```\nx\n```\n"))],
    );
    // Longer fences.
    check(
        &format!("````markdown README.md\n{readme}```\nx\n```\n````\n"),
        &[("README.md", &format!("{readme}```\nx\n```\n"))],
    );
    check(&format!("~~~markdown README.md\n{readme}~~~\n"), &[("README.md", readme)]);
    // Plain Markdown, followed by various text.
    check("```md README.md\n# A\n```\n", &[("README.md", "# A\n")]);
    check("```md README.md\n# A\n```", &[("README.md", "# A\n")]);
    check("```md README.md\n# A\n```\nThat is it.\n", &[("README.md", "# A\n")]);
    check("```md README.md\n# A\n```\n\nRun:\n\n```\nnpm i\n```\n", &[("README.md", "# A\n")]);
    check(
        "```md README.md\n# A\n```\n### a.py\n```python\nx\n```\n",
        &[("README.md", "# A\n"), ("a.py", "x\n")],
    );
    check(
        "```md README.md\n# A\n```\n<file path=\"a.py\">\nx\n</file>\n",
        &[("README.md", "# A\n"), ("a.py", "x\n")],
    );
    // Indented fences and fences in comments are not fences.
    let doc = "/// ```\n/// x\n/// ```\nfn a() {}\n    ```\n";
    check(&format!("```rust src/a.rs\n{doc}```\n"), &[("src/a.rs", doc)]);
}

#[test]
fn ambiguous_fences_inside_files_are_reported() {
    for response in [
        "```md README.md\n# A\n\n```\nnpm i\n```\n\nText.\n```\n",
        "```md README.md\n# A\n```\nRun:\n```\nnpm i\n```\n",
        "```python a.py\nx\n\n### b.py\n```python\ny\n```\n",
        "```md README.md\n```bash\nx\n```\n",
        "### README.md\n```markdown\n# A\n```bash\nx\n```\ntext\n",
    ] {
        let units = seen(response);
        assert_eq!(files(&units), [], "{response}");
        assert!(units.iter().any(|unit| unit.kind == UnitKind::Ambiguous), "{response}: {units:?}");
    }
}

/// Complete responses.
#[test]
fn responses_with_several_files() {
    check(
        "I will write two files.\n\n**index.html**\n```html\n<!DOCTYPE html>\n<p>Hi</p>\n```\n\n**style.css**\n```css\np { color: red; }\n```\n\nOpen `index.html`:\n\n```bash\nopen index.html\n```\n",
        &[("index.html", "<!DOCTYPE html>\n<p>Hi</p>\n"), ("style.css", "p { color: red; }\n")],
    );
    check(
        "## Project structure\n\n```\nsrc/\n├── a.py\n└── b.py\n```\n\n## 1. `src/a.py` – the model\n\n```python\na\n```\n\n## 2. `src/b.py` – the view\n\n```python\nb\n```\n\n## Input/Output\n\n```json\n{}\n```\n",
        &[("src/a.py", "a\n"), ("src/b.py", "b\n")],
    );
    check(
        "Install Node.js:\n\n### Node.js\n\n```sh\napt install nodejs\n```\n\nThen `server.js`:\n\n```js\n// server.js\nx\n```\n",
        &[("server.js", "// server.js\nx\n")],
    );
    check("show.py\n```\nprint(1)\n```\n", &[("show.py", "print(1)\n")]);
    check("No code at all: see src/app.py.\n", &[]);
    check("", &[]);
    check("```python src/app.py\nprint(1)\n", &[]);
    check(
        "```tsx file=\"components/ui/button.tsx\"\nx\n```\n\n```ts file=\"lib/a.ts\" isEdit\ny\n```\n",
        &[("components/ui/button.tsx", "x\n"), ("lib/a.ts", "y\n")],
    );
}
