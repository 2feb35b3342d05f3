//! Distinguishes file paths from words that only resemble one: media types, products, versions,
//! domains, attributes of objects.

mod words;

use self::words::{
    BARE_NAMES, COMMANDS, EXTENSIONS, EXTENSIONS_IN_DIRECTORIES, HIDDEN_NAMES, HIDDEN_SUFFIXES, MEDIA_TYPES,
    PRODUCTS, PRODUCTS_IN_LOWER_CASE, PROGRAM_DIRECTORIES, SOURCE_DIRECTORIES, SYSTEM_DIRECTORIES,
    TOP_LEVEL_DOMAINS, VARIABLES, WHOLE_NAMES,
};

/// The evidence, besides the word itself, that the word is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// It is in a place where paths are common. The word must have a common file extension.
    Word,
    /// It is marked as code or quoted. It may contain blanks.
    Quoted,
    /// It follows `File:` or a similar label. An extension or a directory is enough.
    Labelled,
    /// It is the value of `path=` or a similar attribute. Any possible path is accepted.
    Attribute,
}

/// Returns whether the text is the path of a file.
pub(super) fn is_path(text: &str, trust: Trust) -> bool {
    let is_foreign = |c: char| c.is_control() || "`*<>|\"';,=?!，。、：；！？".contains(c);
    let is_blank = |c: char| c.is_whitespace();
    let has_blanks = text.contains(is_blank);
    if text.is_empty() || text.len() > 255 || text.ends_with(['/', '\\']) || text.contains(is_foreign) {
        return false;
    }
    if has_blanks && (trust < Trust::Quoted || text.trim() != text) {
        return false;
    }
    // `{name}.py` stands for a name.
    let is_placeholder = text.contains(['{', '}']) && trust < Trust::Attribute;
    if is_variable(text) || is_placeholder || has_blanks && is_phrase(text) {
        return false;
    }
    // Only a Windows drive may contain a colon.
    let drive = text.get(1..3).is_some_and(|colon| [":\\", ":/"].contains(&colon));
    let after_drive = if drive { &text[2..] } else { text };
    if after_drive.contains(':') || text.contains("//") || !has_balanced_brackets(text) {
        return false;
    }
    let mut parts = text.split(['/', '\\']);
    let name = parts.next_back().unwrap_or(text);
    let directory = &text[..text.len() - name.len()];
    let first = parts.next().unwrap_or_default();
    if directory.is_empty() {
        return is_file_name(name, trust) && !has_blanks_before_name(name);
    }
    if is_domain(first) && !first.starts_with('.') {
        return false;
    }
    let is_media =
        MEDIA_TYPES.contains(&first) && directory.len() == first.len() + 1 && trust < Trust::Attribute;
    let is_rooted = directory.starts_with(['.', '~']) || is_in_system(text) || drive;
    is_named_in_directory(name, is_media)
        || !is_media
            && (is_rooted || trust >= Trust::Labelled || is_program_directory(directory))
            && is_plain_name(name)
}

/// Returns whether a path starts in a directory that an environment variable names:
/// `$HOME/.bashrc`, `${DIR}/a.py`, `%APPDATA%/x.json`. The names of some web frameworks' routes
/// also start with `$`, but are lower case: `$id/page.tsx`.
fn is_variable(text: &str) -> bool {
    let first = text.split(['/', '\\']).next().unwrap_or_default();
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
    };
    let inner =
        first.strip_prefix('$').or_else(|| first.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')));
    first.len() < text.len() && (first.starts_with("${") || inner.is_some_and(is_name))
}

/// Returns whether words with blanks are no name: a request such as `GET /users.json`, a command
/// such as `python a.py`, or words around a name such as `e.g. a.py`.
fn is_phrase(text: &str) -> bool {
    const ABBREVIATIONS: [&str; 6] = ["cf.", "e.g.", "etc.", "i.e.", "see", "vs."];
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_request = first.len() > 2
        && first.bytes().all(|c| c.is_ascii_uppercase())
        && words.next().is_some_and(|word| word.starts_with('/'));
    // `ruff check src/app.py`, `grep -n main a.rs`.
    let is_command = COMMANDS.contains(&first) || text.split_whitespace().any(|word| word.starts_with('-'));
    is_request || is_command || text.split_whitespace().any(|word| ABBREVIATIONS.contains(&word))
}

/// Returns whether this is a file name in any directory.
fn is_file_name(name: &str, trust: Trust) -> bool {
    if is_well_known(name) {
        return true;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return trust == Trust::Attribute && is_plain_name(name);
    };
    let extension_lower = extension.to_ascii_lowercase();
    if stem.is_empty() || is_version(stem) && !is_common_extension(&extension_lower) {
        return false;
    }
    // `a.b.c` is not a C source file.
    let is_call =
        VARIABLES.contains(&stem) && ["csv", "html", "json", "xml"].contains(&extension_lower.as_str());
    let is_attribute = (extension.len() == 1 && stem.contains('.') || is_call) && trust < Trust::Labelled;
    if is_common_extension(&extension_lower) && !is_attribute {
        return trust >= Trust::Labelled || !is_product(name, stem, &extension_lower);
    }
    // An attribute never contains a hyphen. A CSS selector may, and `fits` checks the language.
    if extension.contains('-') && trust == Trust::Quoted {
        return is_plain_extension(extension) && is_plain_name(name) && !stem.contains('.');
    }
    let is_extension =
        is_plain_extension(extension) && !TOP_LEVEL_DOMAINS.contains(&extension_lower.as_str());
    trust >= Trust::Labelled && is_extension && is_plain_name(name)
}

/// Returns whether this is a file name after a directory, where any extension is accepted.
fn is_named_in_directory(name: &str, is_media: bool) -> bool {
    if is_well_known(name) {
        return true;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let lower = extension.to_ascii_lowercase();
    if stem.is_empty() {
        return false;
    }
    is_common_extension(&lower)
        || EXTENSIONS_IN_DIRECTORIES.contains(&lower.as_str())
        || !is_media && is_plain_extension(extension) && !is_version(stem)
}

fn is_well_known(name: &str) -> bool {
    let is_bare = |name: &str| BARE_NAMES.contains(&name);
    // `Dockerfile.dev`, `.env.local`, `README.old`.
    let first = name.split_once('.').map_or(name, |(first, _)| first);
    let is_variant = is_bare(first)
        && name[first.len()..].bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c));
    is_variant || is_hidden(name) || WHOLE_NAMES.contains(&name)
}

fn is_hidden(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('.') else { return false };
    let is_word = rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    let is_listed = HIDDEN_NAMES.contains(&name) || name.starts_with(".env.");
    let ends = rest.len() > 3 && HIDDEN_SUFFIXES.iter().any(|end| rest.ends_with(end));
    let has_extension = rest
        .rsplit_once('.')
        .is_some_and(|(stem, extension)| !stem.is_empty() && is_common_extension(extension));
    is_word && rest.starts_with(|c: char| c.is_ascii_lowercase()) && (is_listed || ends || has_extension)
}

fn is_common_extension(extension: &str) -> bool {
    EXTENSIONS.binary_search(&extension).is_ok()
}

/// Returns whether the name consists of letters, digits and some punctuation, with at least one
/// letter.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
        && name.chars().all(|c| c.is_alphanumeric() || "._-+@".contains(c))
        && name.chars().any(char::is_alphabetic)
}

fn is_plain_extension(extension: &str) -> bool {
    extension.len() <= 16
        && extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c))
}

/// `1.2`, `v3`.
fn is_version(stem: &str) -> bool {
    let digits = stem.strip_prefix(['v', 'V']).unwrap_or(stem);
    !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit() || c == b'.')
}

fn is_product(name: &str, stem: &str, extension: &str) -> bool {
    let lower = stem.to_ascii_lowercase();
    let is_named = |list: &[&str]| list.contains(&lower.as_str());
    let is_capital = stem.starts_with(|c: char| c.is_ascii_uppercase());
    let is_script =
        extension == "js" && (is_capital && is_named(&PRODUCTS) || is_named(&PRODUCTS_IN_LOWER_CASE));
    // Packages of Julia are written `DataFrames.jl`, namespaces of .NET `System.Text.Json`.
    let is_package = extension == "jl" && is_capital && !stem.contains(['_', '-']);
    let is_namespace = [".Json", ".Xml", ".Html"].iter().any(|end| name.ends_with(end));
    let others = ["asp.net", "docs.rs", "crates.rs", "discord.py", "web3.py"];
    is_script || is_package || is_namespace || others.contains(&name.to_ascii_lowercase().as_str())
}

fn is_program_directory(directory: &str) -> bool {
    let last = directory.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
    last.is_some_and(|last| PROGRAM_DIRECTORIES.contains(&last))
}

/// Returns whether a path begins with a directory of sources.
pub(super) fn is_in_sources(path: &str) -> bool {
    path.split_once('/').is_some_and(|(first, _)| SOURCE_DIRECTORIES.contains(&first))
}

/// Returns whether a path leads into a directory of the system.
fn is_in_system(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    first.is_some_and(|(first, _)| SYSTEM_DIRECTORIES.contains(&first))
}

fn is_domain(part: &str) -> bool {
    part.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && TOP_LEVEL_DOMAINS.contains(&end))
}

/// `Read the docs.md` is a file if it is quoted; `and then main.rs` is not.
fn has_blanks_before_name(name: &str) -> bool {
    name.split_whitespace().count() > 4
}

fn has_balanced_brackets(text: &str) -> bool {
    let mut open = Vec::new();
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => match (open.pop(), c) {
                (Some('('), ')') | (Some('['), ']') | (Some('{'), '}') => {}
                _ => return false,
            },
            _ => {}
        }
    }
    // Brackets must not be empty: `route()` is a call.
    open.is_empty() && !["()", "[]", "{}"].iter().any(|pair| text.contains(pair))
}
