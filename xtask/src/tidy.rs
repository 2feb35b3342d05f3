//! Checks what every folder, manifest, source file and page has to have. Knows nothing of layers, and leaves
//! to the compiler, the formatter and the linter what they can see themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::demo_script;
use crate::process::root;
use crate::source::{DEMO_PROJECT, code, files_below, is_test_or_example};
use crate::workspace::{Workspace, directory};

/// What stands at the top beside dotfiles.
const TOP: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "crates",
    "xtask",
    "benches",
    "docs",
];
/// What cargo makes there.
const MADE: &str = "target";

/// Names that say nothing of what is inside.
const NAMELESS: [&str; 3] = ["utils.rs", "helpers.rs", "mod.rs"];

/// Marks of unfinished work. In two parts, so that this file does not have them.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
];
/// What may panic on input.
const PANICS: &str = concat!(".unw", "rap()");

/// How paths begin that only one machine has, or that lead out of this repository.
const ELSEWHERE: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("../sh", "ared"),
];

/// Where all packages from outside come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks the repository.
///
/// # Errors
/// Every rule that is broken, with where.
pub(crate) fn tidy() -> Result<String> {
    let root = root();
    let files = files_below(root)?;
    let mut broken = check_top(root)?;
    broken.extend(check_packages(&Workspace::load()?)?);
    for file in &files {
        broken.extend(check_name(file));
        // What is no text has no lines to look at.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let shown = file.display();
        let mistakes =
            check_text(file, &text).into_iter().map(|(line, problem)| format!("{shown}:{line}: {problem}"));
        broken.extend(mistakes);
        if file.extension().is_some_and(|extension| extension == "md") && !is_data(file) {
            broken.extend(check_links(root, file, &text));
        }
    }
    broken.extend(check_readme(root)?);
    if let Err(problem) = demo_script::demo_script(true) {
        broken.push(problem.to_string());
    }
    if broken.is_empty() {
        return Ok(format!("tidy: {} files are as they should be", files.len()));
    }
    Err(format!("not tidy:\n  {}", broken.join("\n  ")).into())
}

/// Files that programs of ours read or replay, and that look as they have to.
fn is_data(file: &Path) -> bool {
    file.starts_with(DEMO_PROJECT) || file.starts_with("crates/greenwave-cli/demo/answers")
}

fn check_top(root: &Path) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        found.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let extra =
        found.iter().filter(|name| !name.starts_with('.') && *name != MADE && !TOP.contains(&name.as_str()));
    let extra =
        extra.map(|name| format!("{name}: nothing but {} and dotfiles stands at the top", TOP.join(", ")));
    let missing = TOP.iter().filter(|name| !found.contains(**name)).map(|name| format!("{name} is missing"));
    Ok(extra.chain(missing).collect())
}

fn check_packages(workspace: &Workspace) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for package in workspace.members() {
        let folder = directory(package).strip_prefix(root()).unwrap_or(directory(package));
        let manifest = fs::read_to_string(directory(package).join("Cargo.toml"))?;
        let problems = check_manifest(&manifest, directory(package).join("src/lib.rs").is_file());
        broken.extend(
            problems.into_iter().map(|problem| format!("{}/Cargo.toml: {problem}", folder.display())),
        );
        let Ok(name) = folder.strip_prefix("crates") else { continue };
        if name != Path::new(package.name.as_str()) {
            broken.push(format!("{}: the package in it is called {}", folder.display(), package.name));
        }
        if !directory(package).join("CHANGELOG.md").is_file() {
            broken.push(format!("{} has no CHANGELOG.md", folder.display()));
        }
    }
    Ok(broken)
}

/// What a manifest lacks.
fn check_manifest(manifest: &str, is_library: bool) -> Vec<String> {
    let mut broken = Vec::new();
    let sections = sections(manifest);
    let has = |lines: &[&str], wanted: &str| lines.contains(&wanted);
    let mut of = |name: &str, wanted: &str, is_needed: bool| {
        let mut found = sections.iter().filter(|(section, _)| *section == name).peekable();
        if is_needed && found.peek().is_none() || found.any(|(_, lines)| !has(lines, wanted)) {
            broken.push(format!("{name} has no `{wanted}`"));
        }
    };
    of("[lints]", "workspace = true", true);
    // The default harness of benchmarks does not know criterion's flags.
    of("[lib]", "bench = false", is_library);
    of("[[bin]]", "bench = false", false);
    broken
}

/// The tables of a manifest: heading, and lines without what is around them.
fn sections(manifest: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
        if line.starts_with('[') {
            sections.push((line, Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    sections
}

fn check_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    NAMELESS.contains(&name).then(|| format!("{}: a file is named after the noun inside it", file.display()))
}

/// What is wrong with a file's text, with the line.
fn check_text(file: &Path, text: &str) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(path) = ELSEWHERE.iter().find(|path| begins_with(line, path)) {
            broken.push((number, format!("`{path}` is on one machine only, or outside this repository")));
        }
        if let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
            broken.push((number, format!("`{mark}`: unfinished work is an issue, not a comment")));
        }
        let source = line.trim().strip_prefix("source = ");
        if file == Path::new("Cargo.lock")
            && source.is_some_and(|source| source.trim_matches('"') != REGISTRY)
        {
            broken.push((number, format!("every package from outside comes from {REGISTRY}")));
        }
    }
    if file.extension().is_none_or(|extension| extension != "rs") || file.starts_with(DEMO_PROJECT) {
        return broken;
    }
    if !text.starts_with("//! ") {
        broken.push((1, "line 1 says what the file does and what it is unaware of: `//! …`".to_owned()));
    }
    if !is_test_or_example(file) {
        let panics = code(text).filter(|(_, line)| line.contains(PANICS));
        broken.extend(panics.map(|(number, _)| (number, format!("`{PANICS}` is for tests"))));
    }
    broken
}

/// Whether a path begins in the line, as opposed to going on.
fn begins_with(line: &str, path: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "._-/~*$}>".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(goes_on))
}

/// Links of a page that lead nowhere.
fn check_links(root: &Path, page: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, link) in links(text) {
        let (path, heading) = link.split_once('#').unwrap_or((link, ""));
        if path.contains("://") || path.starts_with("mailto:") {
            continue;
        }
        let target = if path.is_empty() { page.to_owned() } else { page.with_file_name("").join(path) };
        let is_there = match (fs::read_to_string(root.join(&target)), heading) {
            (_, "") => root.join(&target).exists(),
            (Ok(text), heading) => headings(&text).iter().any(|known| known == heading),
            (Err(_), _) => false,
        };
        if !is_there {
            broken.push(format!("{}:{number}: the link `{link}` leads nowhere", page.display()));
        }
    }
    broken
}

/// The targets of a page's inline links, code left out.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        // Every other piece between backticks is code.
        let pieces = line.split('`').step_by(2);
        let targets =
            pieces.flat_map(|piece| piece.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        targets.map(move |target| (number, target))
    })
}

/// The headings of a page, as links name them: the second of the same name ends in `-1`, and so on.
fn headings(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let before = (0..).take_while(|number| names.contains(&numbered(&name, *number))).count();
        names.push(numbered(&name, before));
    }
    names
}

fn numbered(name: &str, number: usize) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}-{number}") }
}

/// The lines of a page that are not in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The examples of the front page are excerpts of those on the crates' own first pages, which are run as tests.
fn check_readme(root: &Path) -> Result<Vec<String>> {
    let readme = fs::read_to_string(root.join("README.md")).unwrap_or_default();
    let mut broken = Vec::new();
    for (package, example) in examples(&readme) {
        let library = PathBuf::from("crates").join(package).join("src/lib.rs");
        let docs = fs::read_to_string(root.join(&library)).unwrap_or_default();
        if let Some(line) = first_foreign_line(&example, &docs) {
            broken.push(format!("README.md: `{line}` is not in the example of {}", library.display()));
        }
    }
    Ok(broken)
}

/// The Rust blocks of a page, each with the package that the heading above it names.
fn examples(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let (mut package, mut is_open) = ("", false);
    for line in page.lines() {
        match line {
            "```rust" => {
                is_open = true;
                found.push((package, Vec::new()));
            }
            "```" => is_open = false,
            line if is_open => found.last_mut().expect("an open block was entered").1.push(line),
            line if line.starts_with('#') => package = line.split('`').nth(1).unwrap_or(""),
            _ => {}
        }
    }
    found
}

/// The first line of an example that the docs do not have, or have before the line above it.
fn first_foreign_line<'a>(example: &[&'a str], docs: &str) -> Option<&'a str> {
    let mut docs = docs.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim);
    example.iter().map(|line| line.trim()).find(|line| !line.is_empty() && !docs.any(|other| other == *line))
}

#[cfg(test)]
mod tests;
