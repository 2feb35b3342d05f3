//! Files in lists, quotes, elements and other fences.

use greenwave_streaming::UnitKind;

use super::{check, files, seen};

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
