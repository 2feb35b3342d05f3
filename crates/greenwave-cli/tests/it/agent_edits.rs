//! Tests of the work that is taken from agents: direct edits, files, edits and diffs in answers.

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// A project with a file of 40 lines, and one to move and to delete.
fn dir() -> TestDir {
    let lines: String = (1..=40).map(|line| format!("line {line}\n")).collect();
    let dir = TestDir::with_project().with("project/src/m.txt", &lines);
    dir.with("project/old.txt", "old\n").with("project/gone.txt", "gone\n")
}

/// Runs a plan with one feature, whose agent and test are shell scripts.
#[track_caller]
fn run(dir: &TestDir, feature: ShellFeature, code: i32) -> Report {
    dir.write("plan.toml", shell_plan::plan(&[feature]));
    Report::of(&dir.run_plan().with_code(code))
}

#[test]
fn what_an_agent_changes_in_its_directory_is_its_work() {
    let dir = dir();
    let script = "cat > /dev/null; echo 'line 41' >> src/m.txt; mv old.txt new.txt; rm gone.txt; \
                  printf '#!/bin/sh\\necho hi\\n' > tool.sh; chmod +x tool.sh; printf '\\377\\000' > b.bin; \
                  echo done";
    let test = "tail -1 src/m.txt | grep -q 41 && test ! -e old.txt && test ! -e gone.txt && ./tool.sh";
    run(&dir, ShellFeature::new("f", script, test), 0);
    assert!(dir.read("project/src/m.txt").ends_with("line 41\n"));
    assert_eq!(dir.read("project/new.txt"), "old\n");
    assert!(!dir.path("project/gone.txt").exists() && !dir.path("project/old.txt").exists());
    assert_eq!(std::fs::read(dir.path("project/b.bin")).unwrap(), b"\xff\x00");
}

/// The summary of an agent that edits files shows excerpts, commands and diffs. None of them
/// replaces what it wrote; a file that it did not write is taken.
#[test]
fn an_agent_that_closes_its_directory_costs_only_its_attempt() {
    let script = "if test \"$GREENWAVE_ATTEMPT\" = 1; then chmod MODE .; exit 1; fi; stat -c %a . > mode.txt";
    for mode in ["500", "000"] {
        let dir = dir();
        let feature = ShellFeature::new("one", &script.replace("MODE", mode), "test -f mode.txt");
        let report = run(&dir, feature.attempts(2), 0);
        assert_eq!(report.rejections("one").len(), 1);
        assert!(dir.read("project/mode.txt").starts_with('7'), "{}", dir.read("project/mode.txt"));
    }
}

#[test]
fn excerpts_in_the_summary_of_an_agent_that_edits_files_are_ignored() {
    let dir = dir();
    let script = r#"cat > /dev/null; echo 'line 41' >> src/m.txt
answer src/m.txt 'line 41'
answer old.txt 'old'
printf '```diff\n--- a/src/m.txt\n+++ b/src/m.txt\n@@ -40 +40,2 @@\n line 40\n+line 41\n```\n'
printf '```sh\nmake\n```\n'
answer extra.txt x"#;
    let test = "test $(wc -l < src/m.txt) = 41 && test -f extra.txt";
    let report = run(&dir, ShellFeature::new("f", script, test), 0);
    assert_eq!(dir.read("project/src/m.txt").lines().count(), 41);
    assert_eq!(dir.read("project/old.txt"), "old\n");
    assert_eq!(report.count("not_taken"), 2, "the excerpt and the diff are reported");
}

#[test]
fn only_the_answer_counts_if_the_plan_says_so() {
    let dir = dir();
    let script = "cat > /dev/null; echo x > direct.txt; answer wanted.txt w";
    let test = "test -f wanted.txt && test ! -e direct.txt";
    run(&dir, ShellFeature::new("f", script, test).agent("edits = \"answer\""), 0);
    assert!(!dir.path("project/direct.txt").exists());
}

#[test]
fn answers_may_hold_edits_and_diffs() {
    let dir = dir();
    let script = r#"cat > /dev/null; cat <<'X'
src/m.txt
```text
<<<<<<< SEARCH
line 2
=======
line two
>>>>>>> REPLACE
```

```diff
diff --git a/old.txt b/new.txt
similarity index 100%
rename from old.txt
rename to new.txt
diff --git a/gone.txt b/gone.txt
deleted file mode 100644
--- a/src/m.txt
+++ b/src/m.txt
@@ -3,2 +3,2 @@
 line 3
-line 4
+line four
```

```sh tool.sh
#!/bin/sh
echo hi
```
X"#;
    let test =
        "grep -q 'line two' src/m.txt && grep -q 'line four' src/m.txt && test -f new.txt && ./tool.sh";
    run(&dir, ShellFeature::new("f", script, test), 0);
    assert!(!dir.path("project/gone.txt").exists() && !dir.path("project/old.txt").exists());
}

#[test]
fn answers_that_would_lose_the_rest_of_a_file_are_rejected() {
    let dir = dir();
    let script = "cat > /dev/null; answer src/m.txt '# ... existing lines unchanged ...\nline 41'";
    let report = run(&dir, ShellFeature::new("f", script, "grep -q 'line 41' src/m.txt"), 1);
    let rejections = report.rejections("f");
    assert!(rejections[0].contains("in place of 40 of its lines"), "{rejections:?}");
    assert_eq!(dir.read("project/src/m.txt").lines().count(), 40);
}

#[test]
fn an_edit_that_does_not_apply_rejects_the_whole_answer() {
    let dir = dir();
    let script = "cat > /dev/null; answer wanted.txt w; \
                  printf 'src/m.txt\\n```\\n<<<<<<< SEARCH\\nnone\\n=======\\nx\\n>>>>>>> REPLACE\\n```\\n'";
    let report = run(&dir, ShellFeature::new("f", script, "test -f wanted.txt"), 1);
    let reason =
        "cannot edit `src/m.txt`: the text to replace is not in the file; its first line is \"none\"";
    assert_eq!(report.rejections("f"), [reason]);
    assert!(!dir.path("project/wanted.txt").exists());
}

#[test]
fn what_was_said_is_shown_and_stored_without_secrets() {
    let dir = dir();
    let script = "cat > /dev/null; echo 'the WORDS'; printf 'the \\033[31mSTDERR sk-abcdefghij0123456789abcd\\n' >&2; \
                  answer wanted.txt w";
    let feature = || ShellFeature::new("f", script, "echo the OUTPUT; test -f none.txt");
    dir.write("plan.toml", shell_plan::plan(&[feature()]));
    let human = dir.greenwave(["run", "--no-metrics", "plan.toml"]).run().with_code(1).stdout;
    for text in ["the WORDS", "the STDERR [masked]", "the OUTPUT", "greenwave attempts plan.toml f"] {
        assert!(human.contains(text), "{text}: {human}");
    }
    let shown = dir.greenwave(["attempts", "plan.toml", "f"]).run().with_code(0).stdout;
    for text in ["the WORDS", "the STDERR [masked]", "the OUTPUT", "wanted.txt: created", "+w"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let json = dir
        .greenwave(["attempts", "plan.toml", "f", "--attempt", "1", "--format", "json"])
        .run()
        .with_code(0);
    let json: serde_json::Value = serde_json::from_str(json.stdout.trim()).unwrap();
    assert_eq!((json["outcome"].as_str(), json["exit"].as_str()), (Some("failed"), Some("exit status: 0")));
    for (word, expected) in [
        ("plam.toml", "cannot read plan plam.toml"),
        ("a/plan", "cannot read plan a/plan"),
        ("g", "feature `g`"),
    ] {
        let missing = dir.greenwave(["attempts", word]).run().with_code(2);
        assert!(missing.stderr.contains(expected), "{}", missing.stderr);
    }
    let missing = dir.greenwave(["attempts", "plan.toml", "f", "--attempt", "9"]).run().with_code(2);
    assert!(missing.stderr.contains("cannot find attempt 9 of feature `f`"), "{}", missing.stderr);
}

#[test]
fn a_missing_agent_program_ends_the_run_before_any_test() {
    let dir = dir();
    let plan = shell_plan::plan(&[ShellFeature::new("f", "true", "touch ../../ran; false")]);
    dir.write("plan.toml", plan.replace("\"sh\", \"-c\", '''\nanswer", "\"cladue\", \"-c\", '''\nanswer"));
    let finished = dir.greenwave(["run", "--no-metrics", "plan.toml"]).run().with_code(2);
    assert!(finished.stderr.contains("cannot find program `cladue` of agent `f`"), "{}", finished.stderr);
    assert!(!dir.path("ran").exists());
}
