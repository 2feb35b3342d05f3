//! Tests file extraction from model responses in the style of several tools (aider, bolt, cline,
//! plandex, gpt-engineer, cursor, continue, v0, Copilot and plain chat), including responses
//! without files. Each response is fed whole, byte by byte, in pairs of bytes and in random chunks.

mod enclosed;
mod other_words;
mod paths;

use greenwave_streaming::conformance::{UnitRecord, chunked, units};
use greenwave_streaming::{Files, UnitKind};
use greenwave_testkit::random::Random;

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
    let mut random = Random::new(SEED ^ response.len() as u64);
    let ways: [&mut dyn FnMut() -> usize; 3] = [&mut || 1, &mut || 2, &mut || 1 + random.index(7)];
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
