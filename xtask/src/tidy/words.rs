//! Finds retired words in comments, string literals and pages, and counts home-made idioms in
//! comments.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use serde::Deserialize;

use super::passages::{Kind, Passage, passages, without_code};
use crate::Result;
use crate::process::root;
use crate::source::{DEMO_PROJECT, files_below, has_extension};

/// The list of words.
pub(super) const LIST: &str = "xtask/words.toml";

/// Maximum number of home-made idioms per 1,000 comment words of a crate.
const IDIOMS_MAX: f64 = 1.0;

/// Patterns of words that are refused, and of idioms that are counted.
#[derive(Debug)]
pub(super) struct WordList {
    retired: Vec<Pattern>,
    idioms: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    expression: Regex,
    unless: Option<Regex>,
    instead: String,
    opens_docs: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawList {
    retired: Vec<RawPattern>,
    idiom: Vec<RawPattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPattern {
    pattern: String,
    unless: Option<String>,
    #[serde(default)]
    instead: String,
    #[serde(default)]
    opens_docs: bool,
}

impl WordList {
    /// Reads `xtask/words.toml`.
    ///
    /// # Errors
    /// If it is not valid.
    pub(super) fn load() -> Result<Self> {
        Self::parse(&fs::read_to_string(root().join(LIST))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let raw: RawList = toml::from_str(text).map_err(|error| format!("cannot parse {LIST}: {error}"))?;
        let patterns = |list: Vec<RawPattern>| list.into_iter().map(Pattern::new).collect::<Result<Vec<_>>>();
        Ok(Self { retired: patterns(raw.retired)?, idioms: patterns(raw.idiom)? })
    }

    /// Returns the retired words in a file with their lines.
    pub(super) fn retired(&self, file: &Path, text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for passage in readable(file, text) {
            for pattern in &self.retired {
                for (line, word) in pattern.hits(&passage) {
                    found.push((line, format!("`{word}` is retired: write {}", pattern.instead)));
                }
            }
        }
        found.sort();
        found
    }
}

impl Pattern {
    fn new(raw: RawPattern) -> Result<Self> {
        let compile = |pattern: &str| {
            let pattern = pattern.replace(' ', r"\s+");
            Regex::new(&format!(r"(?is)\b(?:{pattern})\b"))
                .map_err(|error| format!("cannot parse the pattern `{pattern}` in {LIST}: {error}"))
        };
        // A comma is not followed by a word boundary.
        let expression = if raw.pattern.ends_with(',') {
            Regex::new(&format!(r"(?i)\b{}\s", raw.pattern.replace(' ', r"\s+")))?
        } else {
            compile(&raw.pattern)?
        };
        Ok(Self {
            expression,
            unless: raw.unless.as_deref().map(compile).transpose()?,
            instead: raw.instead,
            opens_docs: raw.opens_docs,
        })
    }

    /// Returns the hits in a passage with their lines.
    fn hits(&self, passage: &Passage) -> Vec<(usize, String)> {
        if self.opens_docs && passage.kind != Kind::Docs {
            return Vec::new();
        }
        let text = &passage.text;
        let permitted: Vec<_> = self.unless.iter().flat_map(|unless| unless.find_iter(text)).collect();
        let hits = self.expression.find_iter(text).filter(|hit| {
            let is_permitted = permitted.iter().any(|it| it.start() <= hit.start() && hit.end() <= it.end());
            let is_opening = text[..hit.start()].trim().is_empty();
            !is_permitted && (is_opening || !self.opens_docs)
        });
        let hits = hits.map(|hit| {
            let line = passage.line + text[..hit.start()].matches('\n').count();
            (line, hit.as_str().split_whitespace().collect::<Vec<_>>().join(" "))
        });
        hits.collect()
    }
}

/// Returns the passages of a file that people read, without code.
fn readable(file: &Path, text: &str) -> Vec<Passage> {
    let whole = |kind| vec![Passage { kind, line: 1, text: without_code(text) }];
    if has_extension(file, "rs") {
        let mut passages = passages(text);
        for passage in passages.iter_mut().filter(|passage| passage.kind != Kind::Literal) {
            passage.text = without_code(&passage.text);
        }
        return passages;
    }
    let is_page = ["md", "toml", "yml", "yaml"].iter().any(|extension| has_extension(file, extension));
    if is_page && file != Path::new(LIST) { whole(Kind::Comment) } else { Vec::new() }
}

/// Counts the idioms in the comments of each crate, or lists them.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn words(directories: &[PathBuf], list_hits: bool) -> Result<String> {
    let list = WordList::load()?;
    let mut report = String::new();
    let directories = if directories.is_empty() { all_directories()? } else { directories.to_vec() };
    for directory in directories {
        let usage = Usage::of(&list, &directory)?;
        if list_hits {
            report.push_str(&usage.hits.join("\n"));
            report.push('\n');
        }
        let name = directory.strip_prefix(root()).unwrap_or(&directory).display();
        let (words, idioms, rate) = (usage.words, usage.hits.len(), usage.per_thousand());
        let _ = writeln!(report, "{name}: {words} comment words, {idioms} idioms, {rate:.1} per 1,000");
    }
    Ok(report.trim_end().to_owned())
}

/// Returns the directories with more than [`IDIOMS_MAX`] idioms per 1,000 comment words.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn check_idioms(list: &WordList) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for directory in all_directories()? {
        let rate = Usage::of(list, &directory)?.per_thousand();
        if rate > IDIOMS_MAX {
            let name = directory.strip_prefix(root()).unwrap_or(&directory).display();
            violations.push(format!(
                "{name}: {rate:.1} home-made idioms per 1,000 comment words, of at most {IDIOMS_MAX:.1}: see \
                 `cargo xtask words -v {name}`"
            ));
        }
    }
    Ok(violations)
}

/// Returns the directories of the crates, the xtask and the benchmarks.
fn all_directories() -> Result<Vec<PathBuf>> {
    let mut directories: Vec<_> =
        fs::read_dir(root().join("crates"))?.map(|it| Ok(it?.path())).collect::<Result<_>>()?;
    directories.extend(["xtask", "benches"].map(|name| root().join(name)));
    directories.sort();
    Ok(directories)
}

/// The comment words of a directory, and the idioms among them.
#[derive(Debug, Default)]
struct Usage {
    words: usize,
    hits: Vec<String>,
}

impl Usage {
    fn of(list: &WordList, directory: &Path) -> Result<Self> {
        let mut usage = Self::default();
        for path in files_below(directory)? {
            let file = directory.join(&path);
            let shown = file.strip_prefix(root()).unwrap_or(&file);
            if has_extension(&path, "rs") && !shown.starts_with(DEMO_PROJECT) {
                usage.add(list, &shown.display().to_string(), &fs::read_to_string(&file)?);
            }
        }
        Ok(usage)
    }

    fn add(&mut self, list: &WordList, file: &str, text: &str) {
        let comments = readable(Path::new("x.rs"), text).into_iter().filter(|it| it.kind != Kind::Literal);
        for passage in comments {
            self.words += passage.text.split_whitespace().count();
            let lines: BTreeMap<usize, &str> = (passage.line..).zip(passage.text.lines()).collect();
            for pattern in &list.idioms {
                for (line, hit) in pattern.hits(&passage) {
                    let context = lines.get(&line).copied().unwrap_or_default();
                    self.hits.push(format!("{file}:{line}: [{hit}] {context}"));
                }
            }
        }
    }

    fn per_thousand(&self) -> f64 {
        1000.0 * self.hits.len() as f64 / self.words.max(1) as f64
    }
}

#[cfg(test)]
mod tests;
