//! A model of the names that an answer may write: the rules of the documentation, written down a
//! second time. It shares nothing with the rules but the default lists of patterns.

use crate::protection::{INSTRUCTION_FILES, PROTECTED_FILES};

/// Directories that no answer may write, under any plan.
const RESERVED: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// Parts of names for which the model makes no promise: settings of runners, manifests, and names
/// of tests, which may be written or not depending on contents.
const UNSPECIFIED: [&str; 45] = [
    "test",
    "spec",
    "e2e",
    "mock",
    "snap",
    "cypress",
    "it.",
    "jest",
    "playwright",
    "ava.",
    "wdio",
    "karma",
    "tox.",
    "nox",
    "phpunit",
    ".rspec",
    "junit",
    "package.json",
    "composer",
    "deno",
    "cargo",
    "pyproject",
    "setup",
    "makefile",
    "justfile",
    "vite",
    "pom.xml",
    "gradle",
    "cmake",
    "meson",
    "build",
    "rakefile",
    "task",
    "gulp",
    "grunt",
    "mix.exs",
    "bazel",
    "workspace",
    "buck",
    "tsconfig",
    "sbt",
    "project",
    "module",
    ".bats",
    "manifest",
];

/// A verdict of the model about the change of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Refused,
    Permitted,
    Unspecified,
}

/// The rules of a plan with one feature.
pub(super) struct Model {
    pub(super) protect: &'static [&'static str],
    pub(super) may_edit: &'static [&'static str],
    pub(super) prompt: &'static str,
}

impl Model {
    /// Returns one of the plans.
    pub(super) fn numbered(number: u8) -> Self {
        let (protect, may_edit, prompt): (&[&str], &[&str], _) = match number % 4 {
            0 => (&[], &[], "Write it."),
            1 => (&["!.github", "ops", "*.sql"], &["docs", "flake.nix"], "Write it."),
            2 => (&["!*"], &["plan.toml"], "Write it."),
            _ => (&["!.envrc", ".envrc"], &[".g*", "*.md"], "Describe it in CLAUDE.md."),
        };
        Self { protect, may_edit, prompt }
    }

    /// Returns whether `may_edit` names a path.
    pub(super) fn is_named(&self, path: &str) -> bool {
        decide(self.may_edit, path) == Some(true)
    }

    /// Returns what holds for the change of a normalised path.
    pub(super) fn rule(&self, path: &str, exists: bool) -> Rule {
        let forms = [folded(path), path.to_lowercase()];
        let names = |form: &str| -> Vec<String> { form.split('/').map(str::to_owned).collect() };
        if forms.iter().any(|form| names(form).iter().any(|name| RESERVED.contains(&name.as_str()))) {
            return Rule::Refused;
        }
        if self.is_named(path) {
            return Rule::Permitted;
        }
        if forms[0] == "plan.toml" || path == "check.sh" {
            return Rule::Refused;
        }
        let default = || PROTECTED_FILES.into_iter().chain(INSTRUCTION_FILES);
        let all: Vec<&str> = default().chain(self.protect.iter().copied()).collect();
        let is_in = |list: &[&str]| forms.iter().any(|form| decide(list, placed(form, path)) == Some(true));
        if is_in(&all) {
            let added = self.protect.iter().copied().filter(|pattern| !pattern.starts_with('!'));
            let added: Vec<&str> = added.collect();
            let name = path.rsplit('/').next().unwrap_or(path);
            let is_named = is_in(&INSTRUCTION_FILES) && !is_in(&added) && self.prompt.contains(name);
            return if is_named { Rule::Unspecified } else { Rule::Refused };
        }
        let lower = path.to_lowercase();
        let is_vague = UNSPECIFIED.iter().any(|part| lower.contains(part)) || lower.contains("check");
        // An exception of a plan need not hold for other spellings.
        let is_spelled = path != lower && self.protect.iter().any(|pattern| pattern.starts_with('!'));
        if !path.is_ascii() || is_vague || is_spelled || (exists && !self.protect.is_empty()) {
            return Rule::Unspecified;
        }
        Rule::Permitted
    }
}

/// Returns the part of a path's form that patterns are compared with. A placeholder is as protected
/// as its directory.
fn placed<'f>(form: &'f str, path: &str) -> &'f str {
    let is_placeholder = path == ".gitkeep" || path.ends_with("/.gitkeep");
    if is_placeholder { form.rsplit_once('/').map_or("", |(directory, _)| directory) } else { form }
}

/// Returns the normalised form of a path that an answer may name; `None` if it may not.
pub(super) fn plain(path: &str) -> Option<String> {
    if path.starts_with('/') || path.ends_with('/') || path.chars().any(char::is_control) {
        return None;
    }
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    (!names.is_empty() && !names.contains(&"..")).then(|| names.join("/"))
}

/// Decides about a path by the patterns: the last one that matches the file decides, else the last
/// one that matches its directory, and so on. `None` if no pattern matches.
fn decide(patterns: &[&str], path: &str) -> Option<bool> {
    let names: Vec<&str> = path.split('/').collect();
    let matching = |end: usize| {
        let mut latest_first = patterns.iter().rev();
        latest_first.find_map(|pattern| {
            let (body, is_in) = pattern.strip_prefix('!').map_or((*pattern, true), |body| (body, false));
            matches_end(&body.to_lowercase(), &names[..end]).then_some(is_in)
        })
    };
    (1..=names.len()).rev().find_map(matching)
}

/// Returns whether a pattern matches the last names of a path: one name, or with `**/` several.
fn matches_end(pattern: &str, names: &[&str]) -> bool {
    let parts: Vec<&str> = pattern.trim_start_matches("**/").split('/').collect();
    names.len() >= parts.len()
        && parts
            .iter()
            .rev()
            .zip(names.iter().rev())
            .all(|(part, name)| glob(part.as_bytes(), name.as_bytes()))
}

/// Returns whether a pattern with stars matches a whole name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| glob(rest, &name[skip..])),
        Some((letter, rest)) => name.first() == Some(letter) && glob(rest, &name[1..]),
    }
}

/// Returns the name of the file that some file system finds for each name in a path: in lower case,
/// without invisible characters, streams, and dots and spaces at the end.
fn folded(path: &str) -> String {
    path.split('/').map(folded_name).collect::<Vec<_>>().join("/")
}

fn folded_name(name: &str) -> String {
    let mut letters = String::new();
    for letter in name.chars() {
        match letter {
            ':' if !letters.is_empty() => break,
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => {}
            'ſ' => letters.push('s'),
            '\u{212a}' => letters.push('k'),
            'ı' => letters.push('i'),
            _ => letters.extend(letter.to_lowercase()),
        }
    }
    let end = letters.trim_end_matches(['.', ' ']).len();
    letters.truncate(end);
    let digits = letters.strip_prefix("git~").unwrap_or_default();
    let is_short = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_digit());
    if is_short { ".git".to_owned() } else { letters }
}
