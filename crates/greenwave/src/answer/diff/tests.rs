//! Diffs as agents write them, applied and refused.

use proptest::prelude::*;

use super::*;

fn apply(before: Option<&str>, diff: &str) -> Result<Option<String>, String> {
    let patches = parse(diff, None).map_err(|problem| problem.to_string())?;
    let [patch] = &patches[..] else { return Err(format!("{} files", patches.len())) };
    patch.apply(before).map_err(|problem| problem.to_string())
}

const FILE: &str = "one\ntwo\nthree\nfour\nfive\ntwo\nthree\n";

#[test]
fn hunks_apply_where_their_lines_are() {
    let head = "--- a/f\n+++ b/f\n";
    let table = [
        ("@@ -1,2 +1,2 @@\n one\n-two\n+2\n", "one\n2\nthree\nfour\nfive\ntwo\nthree\n"),
        // Wrong numbers, wrong counts, no numbers.
        ("@@ -40,9 +40,9 @@ fn f()\n one\n-two\n+2\n", "one\n2\nthree\nfour\nfive\ntwo\nthree\n"),
        ("@@\n four\n+4.5\n five\n", "one\ntwo\nthree\nfour\n4.5\nfive\ntwo\nthree\n"),
        ("@@ ... @@\n-four\n", "one\ntwo\nthree\nfive\ntwo\nthree\n"),
        // Several places: the number decides.
        ("@@ -6,2 +6,1 @@\n-two\n three\n", "one\ntwo\nthree\nfour\nfive\nthree\n"),
        ("@@ -2 +2 @@\n-two\n+2\n", "one\n2\nthree\nfour\nfive\ntwo\nthree\n"),
        // Two hunks.
        (
            "@@ -1,1 +1,2 @@\n one\n+1.5\n@@ -4,1 +5,1 @@\n-four\n+4\n",
            "one\n1.5\ntwo\nthree\n4\nfive\ntwo\nthree\n",
        ),
        ("@@ -3,0 +4,1 @@\n+3.5\n", "one\ntwo\nthree\n3.5\nfour\nfive\ntwo\nthree\n"),
        ("@@ -1,2 +1,2 @@\n one  \n-two\t\n+2\n", "one\n2\nthree\nfour\nfive\ntwo\nthree\n"),
    ];
    for (hunks, expected) in table {
        assert_eq!(apply(Some(FILE), &format!("{head}{hunks}")), Ok(Some(expected.to_owned())), "{hunks}");
    }
}

#[test]
fn hunks_that_do_not_fit_are_refused_with_the_place() {
    let head = "--- a/f\n+++ b/f\n";
    let table = [
        ("@@\n-two\n+2\n", "in the file 2 times, at lines 2, 6"),
        ("@@ -9 +9 @@\n-two\n+2\n", "in the file 2 times, at lines 2, 6"),
        ("@@ -1 +1 @@\n-none\n+2\n", "its first line is \"none\""),
        // No fuzz: one line of context differs.
        ("@@ -1,3 +1,3 @@\n one\n-two\n+2\n drei\n", "its first line is \"one\""),
        ("@@\n+added\n", "its place is unclear"),
        ("@@ -1 +1 @@\n", "without lines"),
    ];
    for (hunks, expected) in table {
        let problem = apply(Some(FILE), &format!("{head}{hunks}")).unwrap_err();
        assert!(problem.contains(expected), "{hunks}: {problem}");
    }
    assert!(apply(None, &format!("{head}@@ -1 +1 @@\n-a\n+b\n")).unwrap_err().contains("does not exist"));
    let binary = "diff --git a/x.png b/x.png\nBinary files a/x.png and b/x.png differ\n";
    assert!(parse(binary, None).unwrap_err().to_string().contains("binary"));
    assert!(parse("@@ -1 +1 @@\n-a\n+b\n", None).unwrap_err().to_string().contains("names no file"));
    let create = "--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n";
    assert!(apply(Some("y\n"), create).unwrap_err().contains("already exists"));
}

fn described(diff: &str) -> Vec<String> {
    let patches = parse(diff, None).unwrap();
    let describe = |patch: &FilePatch<'_>| {
        let new = patch.new_path.as_ref().map(|path| format!(" -> {path}")).unwrap_or_default();
        let mode = patch.executable.map(|is| format!(" x={is}")).unwrap_or_default();
        format!("{:?} {}{new}{mode}", patch.kind, patch.path)
    };
    patches.iter().map(describe).collect()
}

#[test]
fn headers_of_git_and_of_diff_are_read() {
    let table = [
        (
            "diff --git a/src/old.txt b/src/new.txt\nsimilarity index 100%\nrename from src/old.txt\n\
             rename to src/new.txt\n",
            "Rename src/old.txt -> src/new.txt",
        ),
        ("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", "Modify x x=true"),
        ("diff --git a/x b/x\nold mode 100755\nnew mode 100644\n", "Modify x x=false"),
        (
            "diff --git a/t.sh b/t.sh\nnew file mode 100755\nindex 0000000..1\n--- /dev/null\n+++ b/t.sh\n\
             @@ -0,0 +1 @@\n+#!/bin/sh\n",
            "Create t.sh x=true",
        ),
        ("diff --git a/x b/x\ndeleted file mode 100644\nindex 1..0\n", "Delete x"),
        ("diff --git a/x b/x\nnew file mode 100644\nindex 0..e69de29\n", "Create x x=false"),
        ("--- x.rs\t2026-01-01\n+++ x.rs\t2026-01-02\n@@ -1 +1 @@\n-a\n+b\n", "Modify x.rs"),
        ("--- x.rs.orig\n+++ x.rs\n@@ -1 +1 @@\n-a\n+b\n", "Modify x.rs"),
        ("--- a/x.rs\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "Delete x.rs"),
        (
            "--- \"a/\\303\\244 \\\"b\\\".rs\"\n+++ \"b/\\303\\244 \\\"b\\\".rs\"\n@@ -1 +1 @@\n-a\n+b\n",
            "Modify ä \"b\".rs",
        ),
        ("diff --git a/my file b/my file\nold mode 100644\nnew mode 100755\n", "Modify my file x=true"),
        ("diff --git a/x b/y\nsimilarity index 90%\ncopy from x\ncopy to y\n", "Copy x -> y"),
    ];
    for (diff, expected) in table {
        assert_eq!(described(diff), [expected], "{diff}");
    }
    let two = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n\
               diff --git a/y b/y\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n--- a/z\n+++ b/z\n@@\n-a\n+b\n";
    assert_eq!(described(two), ["Modify x", "Modify y", "Modify z"]);
}

#[test]
fn patches_of_codex_are_read() {
    let patch = "*** Begin Patch\n*** Update File: src/a.py\n@@ def f():\n     one\n-    two\n+    2\n\
                 *** Add File: b.txt\n+new\n+file\n*** Delete File: c.txt\n*** Update File: d.txt\n\
                 *** Move to: e.txt\n@@\n-x\n+y\n*** End Patch\n";
    assert_eq!(
        described(patch),
        ["Modify src/a.py", "Create b.txt", "Delete c.txt", "Rename d.txt -> e.txt"]
    );
    let patches = parse(patch, None).unwrap();
    assert_eq!(patches[0].apply(Some("    one\n    two\n")), Ok(Some("    one\n    2\n".to_owned())));
    assert_eq!(patches[1].apply(None), Ok(Some("new\nfile\n".to_owned())));
    assert_eq!(patches[2].apply(Some("c")), Ok(None));
    assert_eq!(patches[3].apply(Some("x\n")), Ok(Some("y\n".to_owned())));
}

#[test]
fn the_line_endings_of_the_file_stay() {
    let diff = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";
    assert_eq!(apply(Some("a\r\nb\r\n"), diff), Ok(Some("a\r\nc\r\n".to_owned())));
    // The diff itself has carriage returns.
    let diff = diff.replace('\n', "\r\n");
    assert_eq!(apply(Some("a\r\nb\r\n"), &diff), Ok(Some("a\r\nc\r\n".to_owned())));
    assert_eq!(apply(Some("a\nb\n"), &diff), Ok(Some("a\nc\n".to_owned())));
}

fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => "[ab]{0,2}",
        1 => Just("-- x".to_owned()),
        1 => Just("++ x".to_owned()),
        1 => Just("@@ -1 +1 @@".to_owned()),
        1 => Just("\\ No newline at end of file".to_owned()),
        1 => Just("diff --git a/x b/x".to_owned()),
        1 => Just("ä ".to_owned()),
    ];
    (proptest::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, ends)| {
        let text = lines.join("\n");
        if ends && !text.is_empty() { text + "\n" } else { text }
    })
}

proptest! {
    /// The diff that a tool makes of two texts leads from one to the other.
    #[test]
    fn a_diff_of_two_texts_leads_from_one_to_the_other(
        (before, after) in (text(), text()), context in 1usize..4
    ) {
        prop_assume!(before != after);
        let mut options = diffy::DiffOptions::new();
        options.set_context_len(context);
        options.set_original_filename("a/f").set_modified_filename("b/f");
        let diff = options.create_patch(&before, &after).to_string();
        let found = apply(Some(&before), &diff);
        prop_assert_eq!(found, Ok(Some(after)), "{}", diff);
    }

    #[test]
    fn any_text_is_parsed_without_a_panic(text in "(?s)([-+ @\\\\*]{0,3}[a-z/ ]{0,6}\n?){0,12}") {
        if let Ok(patches) = parse(&text, Some("f")) {
            for patch in patches {
                let _ = patch.apply(Some("a\nb\n"));
                let _ = patch.apply(None);
            }
        }
    }
}
