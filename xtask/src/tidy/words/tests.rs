//! The word list as it is, and small lists for each property of a pattern.

use super::*;

const SMALL: &str = r#"
[[retired]]
pattern = "folders?"
instead = "directory"
[[retired]]
pattern = "but for"
unless = "but for (example|now)"
instead = "except"
[[retired]]
pattern = "what|the same"
instead = "a noun phrase"
opens_docs = true
[[idiom]]
pattern = "told"
[[idiom]]
pattern = "the same,"
"#;

#[track_caller]
fn check(file: &str, text: &str, expected: &[(usize, &str)]) {
    let list = WordList::parse(SMALL).unwrap();
    let found = list.retired(Path::new(file), text);
    let found: Vec<_> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn retired_words_are_found_in_comments_literals_and_pages() {
    let hit = |word: &str| format!("`{word}` is retired: write directory");
    check("a.rs", "// A folder.\nfn folder() {}\n", &[(1, &hit("folder"))]);
    check("a.rs", "fn f() {\n    g(\"no\n Folders here\");\n}\n", &[(3, &hit("Folders"))]);
    check("a.md", "Text.\nThe folder\n```\nfolder\n```\n", &[(2, &hit("folder"))]);
    check("a.toml", "name = \"folder\"\n", &[(1, &hit("folder"))]);
    check("a.rs", "// `folder` and subfolder and folder_x\n", &[]);
    check("a.txt", "folder\n", &[]);
}

#[test]
fn phrases_match_across_lines_and_have_exceptions() {
    let hit = "`but for` is retired: write except";
    check("a.rs", "// All but\n// for one.\n", &[(1, hit)]);
    check("a.rs", "// Few, but for now enough; all but for one.\n", &[(1, hit)]);
}

#[test]
fn some_words_may_not_open_a_doc_comment() {
    let hit = "`What` is retired: write a noun phrase";
    check("a.rs", "/// What a pool is.\nstruct A;\n", &[(1, hit)]);
    check("a.rs", "//! What a pool is.\n", &[(1, hit)]);
    check("a.rs", "/// The pool. What it is.\n// What follows.\n", &[]);
}

#[test]
fn idioms_are_counted_in_comments() {
    let list = WordList::parse(SMALL).unwrap();
    let mut usage = Usage::default();
    usage.add(&list, "a.rs", "//! It is told.\n// The same, but told `told`.\nlet told = \"told\";\n");
    assert_eq!((usage.words, usage.hits.len()), (8, 3), "{usage:?}");
    assert!(usage.hits.contains(&"a.rs:1: [told] It is told.".to_owned()), "{usage:?}");
    assert!((usage.per_thousand() - 375.0).abs() < 0.1);
}

#[test]
fn the_list_is_valid_and_every_retired_word_has_a_replacement() {
    let list = WordList::load().unwrap();
    assert!(list.retired.len() >= 20 && list.idioms.len() >= 20);
    assert!(list.retired.iter().all(|pattern| !pattern.instead.is_empty()));
    let found = |text: &str| list.retired(Path::new("a.md"), text).len();
    for text in ["a folder", "it is told", "all known", "not kept", "looked up by place", "none of ours"] {
        assert_eq!(found(text), 1, "{text}");
    }
    for text in ["well-known ports", "keep it", "the value is known at compile time", "it looks right"] {
        assert_eq!(found(text), 0, "{text}");
    }
}
