//! Tests of attempts: numbering, summaries, diffs and the latest passing files.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{
    AttemptFigures, AttemptOutcome, Attempts, ChangeKind, Error, NewAttempt, Snapshot, Store, Transcript,
};

use crate::{on_disk, small};

fn new_attempt(outcome: AttemptOutcome, files: &[(&str, &'static str)]) -> NewAttempt {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), Bytes::from_static(text.as_bytes())));
    NewAttempt { files: files.collect(), outcome, note: format!("{outcome:?}"), ..NewAttempt::default() }
}

async fn three_attempts(store: &Store) -> Attempts {
    let attempts = Attempts::new(store.clone(), "attempts");
    let drafts = [
        new_attempt(AttemptOutcome::Failed, &[("src/lib.rs", "fn one() {}\n"), ("notes.md", "hm\n")]),
        new_attempt(
            AttemptOutcome::Passed,
            &[("src/lib.rs", "fn one() {}\nfn two() {}\n"), ("src/new.rs", "//! New.\n")],
        ),
        new_attempt(AttemptOutcome::Aborted, &[]),
    ];
    for attempt in drafts {
        attempts.record("calc/parse", attempt).await.unwrap();
    }
    attempts
}

#[tokio::test]
async fn attempts_are_numbered_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let recorded = three_attempts(&store).await.list("calc/parse").await.unwrap();
    assert_eq!(recorded.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
    store.close().await.unwrap();
    drop(store);

    let attempts = Attempts::new(on_disk(dir.path()), "attempts");
    assert_eq!(attempts.list("calc/parse").await.unwrap(), recorded);
    assert_eq!(attempts.list("calc").await.unwrap(), []);
    assert_eq!(attempts.features().await.unwrap(), ["calc/parse"]);
    assert_eq!(attempts.get("calc/parse", 4).await.unwrap(), None);
    let next = attempts.record("calc/parse", new_attempt(AttemptOutcome::Failed, &[])).await.unwrap();
    assert_eq!(next.number, 4);
}

#[tokio::test]
async fn stored_files_are_part_of_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let blob = store.put_blob(Bytes::from_static(b"stored\n")).await.unwrap();
    let draft = NewAttempt {
        stored: BTreeMap::from([("stored.txt".to_owned(), blob)]),
        ..new_attempt(AttemptOutcome::Passed, &[("new.txt", "new\n")])
    };
    Attempts::new(store.clone(), "attempts").record("both", draft).await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let store = on_disk(dir.path());
    let attempts = Attempts::new(store.clone(), "attempts");
    // The attempt protects the contents.
    let keep = attempts.blobs().await.unwrap();
    store.sweep(&keep).await.unwrap();
    let files = attempts.latest_passing_files("both").await.unwrap().unwrap();
    let texts = files.iter().map(|(path, content)| (path.as_str(), &content[..]));
    assert_eq!(texts.collect::<Vec<_>>(), [("new.txt", &b"new\n"[..]), ("stored.txt", b"stored\n")]);
}

#[tokio::test]
async fn features_with_unusual_names_stay_separate() {
    let attempts = Attempts::new(small(Arc::default()), "a/b");
    for feature in ["x", "x/1", "x%2F1", "%", "日本"] {
        assert_eq!(
            attempts.record(feature, new_attempt(AttemptOutcome::Failed, &[])).await.unwrap().number,
            1
        );
    }
    assert_eq!(attempts.features().await.unwrap(), ["%", "x", "x%2F1", "x/1", "日本"]);
}

#[tokio::test]
async fn the_summary_counts_attempts_and_the_latest_passing_files_are_found() {
    let attempts = three_attempts(&small(Arc::default())).await;
    let summary = attempts.summary("calc/parse").await.unwrap();
    assert_eq!((summary.attempts, summary.passed, summary.paths.len(), summary.blobs), (3, Some(2), 3, 4));
    let code = attempts.latest_passing_files("calc/parse").await.unwrap().unwrap();
    assert_eq!(code.keys().collect::<Vec<_>>(), ["src/lib.rs", "src/new.rs"]);
    assert_eq!(attempts.latest_passing_files("other").await.unwrap(), None::<BTreeMap<_, _>>);
}

#[tokio::test]
async fn any_two_attempts_can_be_compared() {
    let attempts = three_attempts(&small(Arc::default())).await;
    let diff = attempts.diff("calc/parse", 1, 2).await.unwrap();
    let changes: Vec<_> = diff.files.iter().map(|file| (file.path.as_str(), file.change)).collect();
    let expected = [
        ("notes.md", ChangeKind::Removed),
        ("src/lib.rs", ChangeKind::Modified),
        ("src/new.rs", ChangeKind::Added),
    ];
    assert_eq!(changes, expected);
    let text = "--- a/notes.md\n+++ /dev/null\n@@ -1 +0,0 @@\n-hm\n\
        --- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -1 +1,2 @@\n fn one() {}\n+fn two() {}\n\
        --- /dev/null\n+++ b/src/new.rs\n@@ -0,0 +1 @@\n+//! New.\n";
    assert_eq!(diff.to_string(), text);
    assert!(attempts.diff("calc/parse", 2, 2).await.unwrap().files.is_empty());
}

#[tokio::test]
async fn binary_files_are_only_reported_as_different() {
    let attempts = Attempts::new(small(Arc::default()), "attempts");
    attempts.record("f", new_attempt(AttemptOutcome::Failed, &[("a.bin", "text")])).await.unwrap();
    let mut binary = new_attempt(AttemptOutcome::Failed, &[]);
    binary.files.insert("a.bin".to_owned(), Bytes::from_static(b"\xFF\xFE"));
    attempts.record("f", binary).await.unwrap();
    assert_eq!(attempts.diff("f", 1, 2).await.unwrap().to_string(), "Files a/a.bin and b/a.bin differ\n");
}

#[tokio::test]
async fn a_sweep_can_keep_the_attempts() {
    let store = small(Arc::default());
    let attempts = three_attempts(&store).await;
    let keep = attempts.blobs().await.unwrap();
    assert_eq!(store.sweep(&keep).await.unwrap(), 0);
    assert!(attempts.latest_passing_files("calc/parse").await.unwrap().is_some());
    assert_eq!(store.sweep(&HashSet::new()).await.unwrap(), 4);
    let error = attempts.latest_passing_files("calc/parse").await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[tokio::test]
async fn an_invalid_record_is_an_error_with_its_name() {
    let store = small(Arc::default());
    let attempts = three_attempts(&store).await;
    store.put("attempts/calc%2Fparse/0000000002", "garbage".into()).await.unwrap();
    let error = attempts.list("calc/parse").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid record attempts/calc%2Fparse/0000000002: expected an attempt of version 2 or 3"
    );
}

#[tokio::test]
async fn records_match_the_documented_format() {
    let store = small(Arc::default());
    three_attempts(&store).await;
    let text = |text: &str| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
    let number = |number: u32| number.to_le_bytes().to_vec();
    let hash = |contents: &str| blake3::hash(contents.as_bytes()).as_bytes().to_vec();
    let attempt = [
        b"GWA\x02".to_vec(),
        text("calc/parse"),
        number(1),
        number(1),
        text(""),
        text("Failed"),
        text(""),
        text(""),
        text(""),
        number(2),
        text("notes.md"),
        hash("hm\n"),
        text("src/lib.rs"),
        hash("fn one() {}\n"),
        number(0),
    ]
    .concat();
    assert_eq!(store.get("attempts/calc%2Fparse/0000000001").await.unwrap().unwrap(), attempt);

    let wide = |number: u64| number.to_le_bytes().to_vec();
    let attempts = Attempts::new(store.clone(), "attempts");
    for (name, cost, end) in [("costs", Some(7), [number(1), wide(7)].concat()), ("free", None, number(0))] {
        let figures =
            Some(AttemptFigures { millis: 1, input_tokens: 2, cached_tokens: 3, output_tokens: 4, cost });
        let draft = NewAttempt { figures, ..NewAttempt::default() };
        let recorded = attempts.record(name, draft).await.unwrap();
        assert_eq!(attempts.get(name, 1).await.unwrap(), Some(recorded));
        let fields = [text(name), number(1), number(2), [0; 20].to_vec(), [0; 8].to_vec()].concat();
        let figures = [wide(1), wide(2), wide(3), wide(4), end].concat();
        let expected = [b"GWA\x03".to_vec(), fields, figures].concat();
        assert_eq!(store.get(&format!("attempts/{name}/0000000001")).await.unwrap().unwrap(), expected);
    }

    let mut snapshot = Snapshot::default();
    snapshot.add(&store, "notes.md", 0o644, "hm\n".into()).await.unwrap();
    snapshot.save(&store, "state").await.unwrap();
    let expected = [b"GWS\x01".to_vec(), number(1), text("notes.md"), number(0o644), hash("hm\n")].concat();
    assert_eq!(store.get("state").await.unwrap().unwrap(), expected);
}

/// A file that one attempt leaves alone is in its result as it was before.
#[tokio::test]
async fn a_difference_covers_files_that_only_one_attempt_changed() {
    let store = small(Arc::default());
    let attempts = Attempts::new(store.clone(), "attempts");
    let file = |content: &'static str| Bytes::from_static(content.as_bytes());
    let old = store.put_blob(file("old\n")).await.unwrap();
    let draft = |base: &[&str], files: &[(&str, &'static str)]| NewAttempt {
        base: base.iter().map(|path| ((*path).to_owned(), old)).collect(),
        files: files.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect(),
        ..NewAttempt::default()
    };
    for draft in [draft(&["a", "b"], &[("a", "new\n")]), draft(&["a"], &[("a", "new\n"), ("c", "c\n")])] {
        attempts.record("f", draft).await.unwrap();
    }
    // The first attempt deleted `b`, which the second one left, and the second created `c`.
    let diff = attempts.diff("f", 1, 2).await.unwrap();
    let changes: Vec<_> = diff.files.iter().map(|file| (file.path.as_str(), file.change)).collect();
    assert_eq!(changes, [("b", ChangeKind::Added), ("c", ChangeKind::Added)]);
    let diff = attempts.diff("f", 2, 1).await.unwrap();
    assert_eq!(diff.files.iter().map(|file| file.change).collect::<Vec<_>>(), [ChangeKind::Removed; 2]);
}

#[tokio::test]
async fn an_attempt_holds_what_its_author_said_and_the_files_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = on_disk(dir.path());
    let attempts = Attempts::new(store.clone(), "attempts");
    let (old, gone) = (Bytes::from_static(b"one\n"), Bytes::from_static(b"gone\n"));
    let mut base = BTreeMap::new();
    base.insert("a.txt".to_owned(), store.put_blob(old).await.unwrap());
    base.insert("gone.txt".to_owned(), store.put_blob(gone).await.unwrap());
    let draft = NewAttempt {
        stored: BTreeMap::new(),
        files: [("a.txt".to_owned(), Bytes::from_static(b"two\n"))].into(),
        base,
        outcome: AttemptOutcome::Failed,
        reason: "test `t` failed".to_owned(),
        note: "1 != 2".to_owned(),
        transcript: Transcript {
            words: "I changed a.txt.".to_owned(),
            stderr: "warning".to_owned(),
            exit: "exit status: 0".to_owned(),
        },
        figures: Some(AttemptFigures { millis: 1_500, cost: Some(250_000), ..AttemptFigures::default() }),
    };
    let recorded = attempts.record("f", draft.clone()).await.unwrap();
    store.close().await.unwrap();
    drop((attempts, store));

    let store = on_disk(dir.path());
    let attempts = Attempts::new(store.clone(), "attempts");
    let read = attempts.get("f", 1).await.unwrap().unwrap();
    assert_eq!(read, recorded);
    assert_eq!((read.reason, read.note, read.transcript), (draft.reason, draft.note, draft.transcript));
    // A sweep keeps the files before the attempt as well.
    store.sweep(&attempts.blobs().await.unwrap()).await.unwrap();
    let changes = attempts.changes(&recorded).await.unwrap();
    let kinds: Vec<_> = changes.files.iter().map(|file| (file.path.as_str(), file.change)).collect();
    assert_eq!(kinds, [("a.txt", ChangeKind::Modified), ("gone.txt", ChangeKind::Removed)]);
    assert!(changes.to_string().contains("-one\n+two\n"), "{changes}");
}
