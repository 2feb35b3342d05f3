//! Tests further habits of naming files in model responses, and words that only resemble paths.

use crate::files::check;

const NAMES: &[&str] = &[
    "### `src/app.py`: Main app",
    "**`src/app.py`** (create)",
    "### `src/app.py` [NEW]",
    "### [NEW] src/app.py",
    "### NEW: src/app.py",
    "### (new) `src/app.py`",
    "## File 1: src/app.py — entry",
    "### **1. `src/app.py`**",
    "--- FILE: src/app.py ---",
    "=== FILE: src/app.py ===",
    "### FILE: `src/app.py` ###",
    "// FILE: src/app.py",
    "#file: src/app.py",
    "<<< src/app.py >>>",
    "[FILE: src/app.py]",
    "【src/app.py】",
    "`src/app.py` (Python)",
    "src/app.py (Python):",
    "Filename - src/app.py",
    "**Filename**: `src/app.py`",
    "📄 **File: src/app.py**",
    "### 🐍 `src/app.py`",
    "### 📁 File: `src/app.py`",
    "a) src/app.py",
    "(1) src/app.py",
    "Step 1. `src/app.py`",
    "## Step 2 – `src/app.py`",
    "**Step 1: Create `src/app.py`**",
    "### Create `src/app.py`:",
    "### Create a file named `src/app.py`",
    "Create `src/app.py`:",
    "Save this as `src/app.py`:",
    "Save as src/app.py:",
    "→ `src/app.py`",
    "▶ src/app.py",
    "🔹 **src/app.py**",
    "**📄 src/app.py**",
    "<b>src/app.py</b>",
    "<code>src/app.py</code>",
    "<strong><code>src/app.py</code></strong>",
    "**Path**: `src/app.py`",
    "Location: `src/app.py`",
    "**Location:** src/app.py",
    "Target file: `src/app.py`",
    "Source file: `src/app.py`",
    "Full path: `src/app.py`",
    "文件: `src/app.py`",
    "文件:src/app.py",
    "Archivo: src/app.py",
    "Fichier : src/app.py",
    "Datei: src/app.py",
    "- **File**: `src/app.py`",
    "- **`src/app.py`** — entry point",
    "* **src/app.py**: entry point",
    "### 1️⃣ `src/app.py` — entry point",
    "### 3.1. `src/app.py`",
    "#### A. `src/app.py`",
    "### Phase 1: `src/app.py`",
    "### Part 2: src/app.py",
    "## Main script: `src/app.py`",
    "## Entry point (`src/app.py`)",
    "### Backend (src/app.py)",
    "**Backend** (`src/app.py`):",
    "### The model - `src/app.py`",
    "***src/app.py***",
    "====== src/app.py ======",
    "////// src/app.py //////",
    "## `/src/app.py`",
    "### `./src/app.py`",
    "file=src/app.py",
    "filename=\"src/app.py\"",
    "path=\"src/app.py\"",
    "--- src/app.py",
    "### `src/app.py`\n\n> The entry point.",
    "### `src/app.py`\n\n*The entry point.*",
    "### `src/app.py`\n\n- Purpose: the entry point",
    "### `src/app.py`\n**Purpose:** The entry point.",
    "**`src/app.py`**\nThe entry point.",
    "### `src/app.py`\n(entry point)",
    "### `src/app.py`\n\nLanguage: Python",
];

const INFOS: &[&str] = &[
    "{.python filename=\"src/app.py\"}",
    "python {title=\"src/app.py\"}",
    "python title=src/app.py linenums=\"1\"",
    "py title=\"src/app.py\" hl_lines=\"2\"",
    "python:/src/app.py",
    "python // filepath: src/app.py",
    "python # filepath: src/app.py",
    "python filename: src/app.py",
    "python fileName=\"src/app.py\"",
    "python filePath=\"src/app.py\"",
    "python file-name=src/app.py",
    "python caption=\"src/app.py\"",
    "python label=\"src/app.py\"",
    "python <src/app.py>",
    "lang=python path=src/app.py",
    "python source=\"src/app.py\"",
    "language=python filename=src/app.py",
];

const COMMENTS: &[(&str, &str)] = &[
    ("python", "# -*- coding: utf-8 -*-\n# src/app.py"),
    ("python", "#!/usr/bin/env python\n# src/app.py"),
    ("python", "# Filename: src/app.py"),
    ("python", "# Path: src/app.py"),
    ("python", "# file name: src/app.py"),
    ("python", "# src/app.py:"),
    ("python", "#src/app.py"),
    ("python", "## src/app.py"),
    ("python", "# `src/app.py`"),
    ("python", "# --- src/app.py ---"),
    ("python", "# FILE: src/app.py"),
    ("python", "# [src/app.py]"),
    ("python", "# 1. src/app.py"),
    ("python", "# src/app.py — entry point"),
    ("python", "# New file: src/app.py"),
    ("python", "# @filename: src/app.py"),
    ("python", "'''src/app.py'''"),
    ("python", "\n# src/app.py"),
    ("python", "################\n# src/app.py\n################"),
    ("python", "# ./src/app.py"),
    ("python", "# /src/app.py"),
];

/// Whole responses.
const WHOLE: &[(&str, &[(&str, &str)])] = &[
    (
        "<antArtifact identifier=\"a\" type=\"application/vnd.ant.code\" language=\"python\" title=\"src/app.py\">\nx\n</antArtifact>\n",
        &[("src/app.py", "x\n")],
    ),
    ("<file_content path=\"a.py\">\nx\n</file_content>\n", &[("a.py", "x\n")]),
    ("<create_file>\n<path>a.py</path>\n<content>\nx\n</content>\n</create_file>\n", &[("a.py", "x\n")]),
    ("<new_file path=\"a.py\">\nx\n</new_file>\n", &[("a.py", "x\n")]),
    ("<write_file path=\"a.py\">\nx\n</write_file>\n", &[("a.py", "x\n")]),
    (
        "<write_file>\n<file_path>a.py</file_path>\n<content>\nx\n</content>\n</write_file>\n",
        &[("a.py", "x\n")],
    ),
    ("<new_file file_name=\"a.py\">\nx\n</new_file>\n", &[("a.py", "x\n")]),
    (
        "<write_to_file>\n<args>\n<file>\n<path>a.py</path>\n<content>\nx\n</content>\n</file>\n</args>\n</write_to_file>\n",
        &[("a.py", "x\n")],
    ),
    (
        "<write_to_file>\n<path>a.py</path>\n<content>\n```python\nx\n```\n</content>\n</write_to_file>\n",
        &[("a.py", "x\n")],
    ),
    ("<boltAction type=\"file\" filePath=\"a.py\" >\nx\n</boltAction>\n", &[("a.py", "x\n")]),
    (
        "<boltArtifact id=\"a\" title=\"b\"><boltAction type=\"file\" filePath=\"a.py\">x\n</boltAction><boltAction type=\"start\">npm run dev</boltAction></boltArtifact>\n",
        &[("a.py", "x\n")],
    ),
    ("<PlandexBlock lang=\"python\" path=\"a.py\">\nx\n</PlandexBlock>\n", &[("a.py", "x\n")]),
    ("<File path='a.py'>\nx\n</File>\n", &[("a.py", "x\n")]),
    ("<FILE name=\"a.py\">\nx\n</FILE>\n", &[("a.py", "x\n")]),
    ("<file src=\"a.py\">\nx\n</file>\n", &[("a.py", "x\n")]),
    ("<code_file path=\"a.py\">\nx\n</code_file>\n", &[("a.py", "x\n")]),
    ("<codeblock path=\"a.py\">\nx\n</codeblock>\n", &[("a.py", "x\n")]),
    ("<file path=\"a.py\"><![CDATA[\nx\n]]></file>\n", &[("a.py", "x\n")]),
    ("<file>\n  <path>a.py</path>\n  <content><![CDATA[x\n]]></content>\n</file>\n", &[("a.py", "x\n")]),
    ("<CodeProject id=\"a\">\n\n```tsx file=\"a.tsx\"\nx\n```\n\n</CodeProject>\n", &[("a.tsx", "x\n")]),
    ("<thinking>\nI write a.py\n</thinking>\n\na.py\n```python\nx\n```\n", &[("a.py", "x\n")]),
    ("a.py\n\n~~~python\nx\n~~~\n", &[("a.py", "x\n")]),
    ("a.py\n`````python\nx\n`````\n", &[("a.py", "x\n")]),
    ("1.  **a.py**\n\n    The model.\n\n    ```python\n    x\n    ```\n", &[("a.py", "x\n")]),
    ("- [ ] **a.py**\n\n  ```python\n  x\n  ```\n", &[("a.py", "x\n")]),
    (
        "### `a.py`\n\nThe model.\n\n```python\nx\n```\n\n### `b.py`\n\nThe view.\n\n```python\ny\n```\n",
        &[("a.py", "x\n"), ("b.py", "y\n")],
    ),
    (
        "<details>\n<summary><code>a.py</code></summary>\n\n```python\nx\n```\n</details>\n",
        &[("a.py", "x\n")],
    ),
    ("<details open>\n<summary>📄 a.py</summary>\n\n```python\nx\n```\n</details>\n", &[("a.py", "x\n")]),
    ("### `app/(shop)/[id]/page.tsx`\n```tsx\nx\n```\n", &[("app/(shop)/[id]/page.tsx", "x\n")]),
    ("**My Notes/read me.md**\n```md\nx\n```\n", &[]),
    ("`My Notes/read me.md`\n```md\nx\n```\n", &[("My Notes/read me.md", "x\n")]),
    ("```md \"My Notes/read me.md\"\nx\n```\n", &[("My Notes/read me.md", "x\n")]),
    ("```md title=\"My Notes/read me.md\"\nx\n```\n", &[("My Notes/read me.md", "x\n")]),
    ("### `Dockerfile`\n```dockerfile\nFROM a\n```\n", &[("Dockerfile", "FROM a\n")]),
    ("### `.env`\n```env\nA=b\n```\n", &[(".env", "A=b\n")]),
    ("### `Makefile`\n```make\na:\n```\n", &[("Makefile", "a:\n")]),
    ("### `Makefile`\n```makefile\na:\n```\n", &[("Makefile", "a:\n")]),
    ("### `requirements.txt`\n```\na\n```\n", &[("requirements.txt", "a\n")]),
    ("### requirements.txt\n```txt\na\n```\n", &[("requirements.txt", "a\n")]),
    ("### `CMakeLists.txt`\n```cmake\na\n```\n", &[("CMakeLists.txt", "a\n")]),
    ("### `nginx.conf`\n```nginx\na\n```\n", &[("nginx.conf", "a\n")]),
    ("### `docker-compose.yml`\n```yaml\na\n```\n", &[("docker-compose.yml", "a\n")]),
    ("### `schema.prisma`\n```prisma\na\n```\n", &[("schema.prisma", "a\n")]),
    ("### `main.tf`\n```hcl\na\n```\n", &[("main.tf", "a\n")]),
    ("### `app.kt`\n```kotlin\na\n```\n", &[("app.kt", "a\n")]),
    ("### `build.gradle.kts`\n```kotlin\na\n```\n", &[("build.gradle.kts", "a\n")]),
    ("### `pom.xml`\n```xml\na\n```\n", &[("pom.xml", "a\n")]),
    ("### `Program.cs`\n```csharp\na\n```\n", &[("Program.cs", "a\n")]),
    ("### `app.module.ts`\n```typescript\na\n```\n", &[("app.module.ts", "a\n")]),
    ("### `user.service.ts`\n```ts\na\n```\n", &[("user.service.ts", "a\n")]),
    ("### `setup.cfg`\n```ini\na\n```\n", &[("setup.cfg", "a\n")]),
    ("### `.github/workflows/ci.yml`\n```yaml\na\n```\n", &[(".github/workflows/ci.yml", "a\n")]),
    ("### `index.d.ts`\n```ts\na\n```\n", &[("index.d.ts", "a\n")]),
    ("### `lib/main.dart`\n```dart\na\n```\n", &[("lib/main.dart", "a\n")]),
    ("### `main.c`\n```c\na\n```\n", &[("main.c", "a\n")]),
    ("### `App.svelte`\n```svelte\na\n```\n", &[("App.svelte", "a\n")]),
    ("### `query.graphql`\n```graphql\na\n```\n", &[("query.graphql", "a\n")]),
    ("### `a.proto`\n```proto\na\n```\n", &[("a.proto", "a\n")]),
    ("### `a.proto`\n```protobuf\na\n```\n", &[("a.proto", "a\n")]),
    ("### `run.ps1`\n```powershell\na\n```\n", &[("run.ps1", "a\n")]),
    ("### `run.bat`\n```batch\na\n```\n", &[("run.bat", "a\n")]),
    ("### `Jenkinsfile`\n```groovy\na\n```\n", &[("Jenkinsfile", "a\n")]),
    ("### `Gemfile`\n```ruby\na\n```\n", &[("Gemfile", "a\n")]),
    ("### `Procfile`\n```\na\n```\n", &[("Procfile", "a\n")]),
];

/// Words of lines, comments and info strings that are no files.
const NONE: &[&str] = &[
    "TensorFlow.js",
    "Chart.js",
    "Socket.IO",
    "Moment.js",
    "pkg.go.dev",
    "Next.js/React",
    "CI/CD",
    "read/write",
    "Python 3.12",
    "pandas.DataFrame",
    "System.out",
    "Math.max",
    "string.format",
    "app.listen",
    "window.location",
    "request.body",
    "Task.Run",
    "user.name",
    "sys.argv",
    "Array.prototype.map",
    "localhost:8080",
    "java.util.List",
    "torch.nn",
    "module.exports",
    "document.cookie",
    "192.168.0.1",
    "10.0.0.0/8",
    "user@example.com",
    "multipart/form-data",
    "text/html; charset=utf-8",
    "video/mp4",
    "font/woff2",
    "audio/mpeg",
    "model/gltf",
    "application/x-www-form-urlencoded",
    "text/x-python",
    "js/ts",
    "html/css",
    "client/server",
    "TCP/UDP",
    "dev/prod",
    "A/B",
    "km/h",
    "2024/01/01",
    "1/2",
    "Option 1/2",
    "Example 1.1",
    "v1.2.3-rc.1",
    "3.14.x",
    "node:18-alpine",
    "python:3.12",
    "origin/main",
    "feature/login",
    "@angular/core",
    "@types/node",
    "lodash/fp",
    "react-dom/client",
    "aws-sdk/client-s3",
    "refs/heads/main",
    "localhost:3000/api",
    "mailto:x@y.z",
    "ftp://a/b.txt",
    "file:///etc/hosts",
    "s3://b/k.json",
    "C/C++",
    "N/A",
    "GET /api/users.json",
    "example.org",
    "my.site.io",
    "sub.example.co.uk/path.html",
    "text/css",
    "text/markdown",
    "application/xml",
    "message/rfc822",
    "image/png",
    "Backbone.js",
    "Ember.js",
    "Alpine.js",
    "Nuxt.js",
    "Nest.js",
    "Electron.js",
    "Babylon.js",
    "p5.js",
    "Discord.js",
    "Sass/SCSS",
    "Request/Response",
    "Pros/Cons",
    "Before/After",
    "Yes/No",
    "macOS/Linux",
    "Windows/Linux",
    "Big O: O(n/2)",
    "vs.",
    "No. 1",
    "Fig. 2",
    "a.k.a.",
    "U.S.",
    "Inc.",
    "Mr.",
    "3.5mm",
    "1.5x",
    "0.1s",
    "$HOME/.bashrc",
    "%APPDATA%/x.json",
    "pytest.fixture",
    "unittest.mock",
    "os.environ",
    "json.dumps",
    "re.sub",
    "std.io",
    "rust-lang.org",
    "deno.land",
    "npm.im",
    "app.get",
    "app.route",
    "db.session",
    "cy.get",
];

const TITLES: &[&str] = &[
    "`e.g. a.py`:",
    "### Error (`src/app.py`)",
    "**Error: `src/app.py`**",
    "### Usage (src/app.py)",
    "### Run the tests (`src/app.py`)",
    "### Changes (`src/app.py`)",
    "### Login function (`src/app.py`)",
    "### New route (`src/app.py`)",
    "### How to call it - `src/app.py`",
    "Backend (`src/app.py`)",
    "### Fix: `src/app.py`",
    "### Example - `src/app.py`",
    "### In the backend, and only there (`src/app.py`)",
    "### Import (`src/app.py`)",
    "**Add a route** (`src/app.py`):",
    "* **src/app.py**: add a route",
    "- **src/app.py**: run it",
    "### Save the output to `src/app.py`",
    "### `a.py` and the backend (`src/app.py`)",
];

fn one<'a>(path: &'a str, text: &'a str) -> [(&'a str, &'a str); 1] {
    [(path, text)]
}

#[test]
fn more_lines_above_name_a_file() {
    for name in NAMES {
        let path = match *name {
            "## `/src/app.py`" => "/src/app.py",
            "### `./src/app.py`" => "./src/app.py",
            _ => "src/app.py",
        };
        check(&format!("Here.\n\n{name}\n\n```python\nx\n```\n"), &one(path, "x\n"));
    }
}

#[test]
fn more_info_strings_name_a_file() {
    for info in INFOS {
        let path = if info.contains(":/") { "/src/app.py" } else { "src/app.py" };
        check(&format!("```{info}\nx\n```\n"), &one(path, "x\n"));
    }
}

#[test]
fn more_comments_name_a_file() {
    for (language, comment) in COMMENTS {
        let path = match *comment {
            "# ./src/app.py" => "./src/app.py",
            "# /src/app.py" => "/src/app.py",
            _ => "src/app.py",
        };
        let content = format!("{comment}\nx\n");
        check(&format!("Sure:\n\n```{language}\n{content}```\n"), &one(path, &content));
    }
}

#[test]
fn more_forms_of_files() {
    for (response, expected) in WHOLE {
        check(response, expected);
    }
}

#[test]
fn more_words_that_resemble_paths_name_no_file() {
    for word in NONE {
        for line in [
            format!("### {word}"),
            format!("**{word}**"),
            format!("`{word}`:"),
            format!("- {word}"),
            format!("### `{word}`"),
            format!("### 1. {word}"),
            format!("{word}:"),
            format!("### Backend ({word})"),
            format!("**Backend: `{word}`**"),
        ] {
            check(&format!("{line}\n```\nx\n```\n"), &[]);
            check(&format!("{line}\n\n```js\nx\n```\n"), &[]);
        }
        check(&format!("```{word}\nx\n```\n"), &[]);
        check(&format!("```js {word}\nx\n```\n"), &[]);
        check(&format!("```js\n// {word}\nx\n```\n"), &[]);
        check(&format!("```python\n# {word}\nx\n```\n"), &[]);
    }
}

#[test]
fn titles_of_parts_name_no_file() {
    for title in TITLES {
        check(&format!("{title}\n\n```python\nx\n```\n"), &[]);
        check(&format!("{title}\n```python\nx\n```\n"), &[]);
    }
}
