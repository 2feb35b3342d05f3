//! Checks the top-level directory, manifests, source files and pages.
//!
//! Complements clippy (panics, unfinished code, length of functions), cargo-deny (origin of
//! packages), typos (spelling) and lychee (links).

mod calls;
mod option_ranges;
mod passages;
mod reads;
mod width;
mod words;
mod writes;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cargo_metadata::Package;

use crate::Result;
use crate::demo_script;
use crate::process::root;
use crate::source::{DEMO_PROJECT, files_below, has_extension};
use crate::workspace::{Workspace, directory};

use words::WordList;
pub(crate) use words::words;

/// Files whose text stays as it is.
const DATA: [&str; 5] = [
    "benches/results",
    "crates/greenwave-cli/demo/answers",
    "xtask/src/tidy/tests.rs",
    "xtask/src/tidy/words/tests.rs",
    "crates/greenwave-cli/demo/plan.toml",
];

/// Entries of the top-level directory, in addition to dotfiles.
const TOP: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "rust-toolchain.toml",
    "crates",
    "xtask",
    "benches",
    "docs",
];
/// Cargo's build directory.
const BUILD_DIRECTORY: &str = "target";

/// File names that do not describe the content.
const MEANINGLESS: [&str; 3] = ["utils.rs", "helpers.rs", "mod.rs"];

/// Marks of unfinished work. Split, so that this file does not contain them.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

/// Beginnings of paths that exist on one machine only, or that lead out of the repository.
const FOREIGN_PATHS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("../sh", "ared"),
];

/// Checks the repository.
///
/// # Errors
/// Lists every violation with its place.
pub(crate) fn tidy() -> Result<String> {
    let root = root();
    let words = WordList::load()?;
    let files = files_below(root)?;
    let mut violations = check_top(root)?;
    violations.extend(check_packages(&Workspace::load()?)?);
    for file in &files {
        violations.extend(check_name(file));
        // Binary files have no lines.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let mut problems = check_text(file, &text);
        if !is_data(file) {
            problems.extend(check_prose(&words, file, &text));
        }
        let shown = file.display();
        violations.extend(problems.into_iter().map(|(line, problem)| format!("{shown}:{line}: {problem}")));
    }
    violations.extend(option_ranges::check(&root.join("crates"))?);
    violations.extend(reads::check(&root.join("crates"))?);
    violations.extend(writes::check(&root.join("crates"))?);
    violations.extend(check_readmes(root)?);
    violations.extend(words::check_idioms(&words)?);
    if let Err(error) = demo_script::demo_script(true) {
        violations.push(error.to_string());
    }
    if violations.is_empty() {
        return Ok(format!("tidy: {} files checked", files.len()));
    }
    Err(format!("not tidy:\n  {}", violations.join("\n  ")).into())
}

/// Returns whether a file is data that programs read or replay, a record of a past run, or a
/// quotation of retired words.
fn is_data(file: &Path) -> bool {
    file.starts_with(DEMO_PROJECT) || DATA.iter().any(|entry| file.starts_with(entry))
}

fn check_top(root: &Path) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        found.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let is_extra =
        |name: &&String| !name.starts_with('.') && *name != BUILD_DIRECTORY && !TOP.contains(&name.as_str());
    let extra = found.iter().filter(is_extra);
    let extra = extra.map(|name| format!("{name}: the top level holds only {} and dotfiles", TOP.join(", ")));
    let missing = TOP.iter().filter(|name| !found.contains(**name)).map(|name| format!("{name} is missing"));
    Ok(extra.chain(missing).collect())
}

fn check_packages(workspace: &Workspace) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for package in workspace.members() {
        let absolute = directory(package);
        let relative = absolute.strip_prefix(root()).unwrap_or(absolute);
        let shown = relative.display();
        let manifest = fs::read_to_string(absolute.join("Cargo.toml"))?;
        let is_library = absolute.join("src/lib.rs").is_file();
        let problems = check_manifest(&manifest, is_library, is_library && is_published(package));
        violations.extend(problems.into_iter().map(|problem| format!("{shown}/Cargo.toml: {problem}")));
        let Ok(name) = relative.strip_prefix("crates") else { continue };
        if directory_of(package.name.as_str()) != name {
            violations.push(format!("{shown}: the package is named {}", package.name));
        }
        let missing = required_pages(package).filter(|page| !absolute.join(page).is_file());
        violations.extend(missing.map(|page| format!("{shown}/{page} is missing")));
    }
    Ok(violations)
}

/// Returns the directory below `crates` of a package. The unpublished test kit does without the
/// prefix.
fn directory_of(package: &str) -> &Path {
    Path::new(if package == "greenwave-testkit" { "testkit" } else { package })
}

fn is_published(package: &Package) -> bool {
    package.publish.as_ref().is_none_or(|registries| !registries.is_empty())
}

/// Pages of a published package. Those of the licenses are links to the files at the top level.
const PUBLISHED_PAGES: [&str; 4] = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Returns the pages that a published package needs.
fn required_pages(package: &Package) -> impl Iterator<Item = &'static str> {
    let pages = if is_published(package) { &PUBLISHED_PAGES[..] } else { &[] };
    pages.iter().copied()
}

/// Returns the settings that a manifest lacks.
fn check_manifest(manifest: &str, is_library: bool, is_documented: bool) -> Vec<String> {
    let mut violations = Vec::new();
    let sections = sections(manifest);
    let mut require = |name: &str, setting: &str, is_mandatory: bool| {
        let mut found = sections.iter().filter(|(section, _)| *section == name).peekable();
        if is_mandatory && found.peek().is_none() || found.any(|(_, lines)| !lines.contains(&setting)) {
            violations.push(format!("{name} lacks `{setting}`"));
        }
    };
    require("[lints]", "workspace = true", true);
    // The default benchmark harness rejects criterion's flags.
    require("[lib]", "bench = false", is_library);
    require("[[bin]]", "bench = false", false);
    // Documentation shows optional items, each with its feature.
    require("[package.metadata.docs.rs]", "all-features = true", is_documented);
    violations
}

/// Returns the tables of a manifest: heading and lines, without comments.
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
    MEANINGLESS.contains(&name).then(|| format!("{}: name a file after its content", file.display()))
}

/// Returns the violations in any text file, with their lines.
fn check_text(file: &Path, text: &str) -> Vec<(usize, String)> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(path) = FOREIGN_PATHS.iter().find(|path| starts_path(line, path)) {
            violations
                .push((number, format!("`{path}` exists on one machine only, or outside the repository")));
        }
        if let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
            violations.push((number, format!("`{mark}`: file an issue instead")));
        }
    }
    if has_extension(file, "rs") && !file.starts_with(DEMO_PROJECT) && !text.starts_with("//! ") {
        violations.push((1, "line 1 says what the file contains: `//! …`".to_owned()));
    }
    violations
}

/// Returns the lines that are too wide, and the retired words.
fn check_prose(words: &WordList, file: &Path, text: &str) -> Vec<(usize, String)> {
    let too_wide = width::too_wide(file, text).into_iter();
    let too_wide = too_wide
        .map(|(line, width)| (line, format!("{width} columns: wrap the text at {}", width::WIDTH_MAX)));
    too_wide.chain(words.retired(file, text)).collect()
}

/// Returns whether a path starts in the line, as opposed to continuing a longer one.
fn starts_path(line: &str, path: &str) -> bool {
    let continues = |c: char| c.is_alphanumeric() || "._-/~*$}>".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(continues))
}

/// Checks that the page of each library has an example, and that its examples are excerpts of the
/// examples on the crate's first page, which are tests.
fn check_readmes(root: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let directory = entry?.path();
        let read = |page: &str| fs::read_to_string(directory.join(page));
        // The program has no library, and the test kit has no page.
        let (Ok(readme), Ok(docs)) = (read("README.md"), read("src/lib.rs")) else { continue };
        let page = directory.strip_prefix(root).unwrap_or(&directory).join("README.md");
        let problem = check_examples(&readme, &docs);
        violations.extend(problem.map(|problem| format!("{}: {problem}", page.display())));
    }
    Ok(violations)
}

/// Compares the examples of a page with the docs of a library, and returns the first problem.
fn check_examples(readme: &str, docs: &str) -> Option<String> {
    let found = examples(readme);
    if found.is_empty() {
        return Some("the page has no example in Rust".to_owned());
    }
    let foreign = found.iter().find_map(|example| first_foreign_line(example, docs));
    foreign.map(|line| format!("`{line}` is missing in the example of src/lib.rs"))
}

/// Returns the Rust blocks of a page.
fn examples(page: &str) -> Vec<Vec<&str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        match line {
            "```rust" => {
                is_open = true;
                found.push(Vec::new());
            }
            "```" => is_open = false,
            line if is_open => found.last_mut().expect("an opening fence adds an entry").push(line),
            _ => {}
        }
    }
    found
}

/// Returns the first line of an example that is missing in the docs, or that the docs have in
/// another order. The docs may hide a line, such as that of `main`.
fn first_foreign_line<'a>(example: &[&'a str], docs: &str) -> Option<&'a str> {
    let docs = docs.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim);
    let mut docs = docs.map(|line| line.strip_prefix("# ").unwrap_or(line));
    example.iter().map(|line| line.trim()).find(|line| !line.is_empty() && !docs.any(|other| other == *line))
}

#[cfg(test)]
mod tests;
