//! Checks that the tests of option ranges cover every public option that is a number or a time.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::source::{files_below, has_extension};

/// Tests with the extreme values of every option of a crate.
const TABLE: &str = "tests/it/option_ranges.rs";

/// Ends of the names of structs that hold options.
const OPTION_STRUCTS: [&str; 3] = ["Options", "Limits", "Settings"];
/// Other structs that callers fill in with numbers.
const FURTHER_STRUCTS: [&str; 5] = ["Rate", "Retry", "Test", "Tier", "Tracer"];

/// Types with extreme values.
const NUMBERS: [&str; 10] = ["u8", "u16", "u32", "u64", "usize", "i32", "i64", "f32", "f64", "Duration"];

/// A public field of a struct with options.
#[derive(Debug, PartialEq, Eq)]
struct NumericOption {
    holder: String,
    field: String,
}

/// Returns the options of the crates below a directory that no test of option ranges mentions.
///
/// A test may stand in another file of the crate's tests if the table's first comment names that
/// struct.
pub(super) fn check(crates: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    let mut entries = fs::read_dir(crates)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let directory = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut options = Vec::new();
        for file in files_below(&directory)? {
            if file.starts_with("src") && has_extension(&file, "rs") {
                options.extend(numeric_options(&fs::read_to_string(directory.join(file))?));
            }
        }
        if options.is_empty() || name == "testkit" {
            continue;
        }
        let tests = load_tests(&directory)?;
        let missing = options.into_iter().filter(|option| !is_tested(option, &tests));
        violations.extend(missing.map(|NumericOption { holder, field }| {
            format!(
                "crates/{name}/{TABLE}: no test of {holder}::{field} with its smallest and largest values"
            )
        }));
    }
    Ok(violations)
}

/// Tests of a crate.
struct Tests {
    /// Text of the table, or nothing.
    table: String,
    /// Text of all test files.
    all: String,
}

fn load_tests(directory: &Path) -> Result<Tests> {
    let table = fs::read_to_string(directory.join(TABLE)).unwrap_or_default();
    let mut all = String::new();
    for file in files_below(directory)? {
        if file.starts_with("tests") && has_extension(&file, "rs") {
            all += &fs::read_to_string(directory.join(file))?;
        }
    }
    Ok(Tests { table, all })
}

fn is_tested(option: &NumericOption, tests: &Tests) -> bool {
    let NumericOption { holder, field } = option;
    let is_delegated =
        tests.table.lines().take_while(|line| line.starts_with("//!")).any(|line| {
            line.contains(&format!("`{holder}`")) || line.contains(&format!("`{holder}::{field}`"))
        });
    let text = if is_delegated { &tests.all } else { &tests.table };
    mentions(text, field)
}

/// Returns whether a text contains a name as a whole word, outside of comments.
fn mentions(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    code.flat_map(|line| line.split(|character| !is_part(character))).any(|word| word == name)
}

/// Returns the public numeric fields of the structs with options in a source file.
fn numeric_options(source: &str) -> Vec<NumericOption> {
    let mut options = Vec::new();
    let mut holder = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            let holds = OPTION_STRUCTS.iter().any(|end| name.ends_with(end))
                || FURTHER_STRUCTS.contains(&name.as_str());
            holder = Some(name).filter(|_| holds && rest.ends_with('{'));
        } else if line == "}" {
            holder = None;
        } else if let Some(holder) = &holder
            && let Some((field, kind)) =
                line.strip_prefix("    pub ").and_then(|line| line.trim_end_matches(',').split_once(": "))
            && NUMBERS.contains(&kind.strip_prefix("Option<").map_or(kind, |kind| kind.trim_end_matches('>')))
        {
            options.push(NumericOption { holder: holder.clone(), field: field.to_owned() });
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
pub struct PoolOptions {
    /// Size.
    pub size_max: usize,
    pub name: String,
    pub wait: Option<Duration>,
}

pub struct PoolStats {
    pub size: usize,
}
";

    fn option(field: &str) -> NumericOption {
        NumericOption { holder: "PoolOptions".to_owned(), field: field.to_owned() }
    }

    #[test]
    fn options_are_public_numbers_of_structs_with_options() {
        assert_eq!(numeric_options(SOURCE), [option("size_max"), option("wait")]);
    }

    #[test]
    fn a_table_mentions_each_option_in_code() {
        let load = |table: &str, all: &str| Tests { table: table.to_owned(), all: all.to_owned() };
        let table = load("    PoolOptions { size_max, ..usual() };\n    // wait", "");
        assert!(is_tested(&option("size_max"), &table) && !is_tested(&option("wait"), &table));
        let elsewhere = load("//! `PoolOptions` are tested in `pool.rs`.", "options.wait = None;");
        assert!(is_tested(&option("wait"), &elsewhere) && !is_tested(&option("size_max"), &elsewhere));
    }
}
