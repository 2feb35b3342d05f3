//! Lines, info strings and comments that name a file.

use super::{Found, PY, check};

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
