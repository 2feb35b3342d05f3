//! Compares the table of settings in the documentation with the values that the program prints.

use super::{Values, bytes};

/// The page with the table: a row for each key and a column for each profile.
pub(super) const PAGE: &str = "docs/configuration.md";

/// Returns the differences between the page and a profile.
pub(super) fn compare(page: &str, profile: &str, values: &Values) -> Vec<String> {
    let mut lines = page.lines();
    let column = lines.by_ref().find_map(|line| cells(line).iter().position(|cell| *cell == profile));
    let Some(column) = column else { return vec![format!("{PAGE} has no column for the profile {profile}")] };
    let rows: Vec<_> = lines.take_while(|line| line.starts_with('|')).map(cells).collect();
    let mut differences = Vec::new();
    for (key, value) in values {
        let row = rows.iter().find(|row| row.first().is_some_and(|cell| cell.trim_matches('`') == key));
        match row.map(|row| row.get(column).copied().unwrap_or_default()) {
            None => differences.push(format!("{PAGE} has no row for `{key}`")),
            Some(cell) if is_same(cell.trim_matches('`').trim_matches('"'), value) => {}
            Some(cell) => {
                differences.push(format!("{PAGE} has `{key}` = {cell} for {profile}: expected {value}"));
            }
        }
    }
    let names_a_key = |row: &&Vec<&str>| row.first().is_some_and(|cell| cell.starts_with('`'));
    let unknown = rows
        .iter()
        .filter(names_a_key)
        .map(|row| row[0].trim_matches('`'))
        .filter(|key| !values.contains_key(*key));
    differences.extend(unknown.map(|key| format!("{PAGE} has a row for the unknown setting `{key}`")));
    differences
}

/// Compares a cell with a value. A cell may write a size with its unit.
fn is_same(cell: &str, value: &str) -> bool {
    cell == value || bytes(cell).ok().is_some_and(|size| bytes(value).ok() == Some(size))
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| key | accepts | small | large |
| --- | --- | --- | --- |
| `cache.entries` | number | `5` | `10` |
| `storage.memory_limit` | size | `10 MB` | `500 MB` |
| `cache.directory` | path | `\"\"` | `\"\"` |

| `kind` | key |
| `features.tests` | a | b | c |
";

    fn check(profile: &str, values: &[(&str, &str)], expected: &[&str]) {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(compare(TABLE, profile, &values), expected);
    }

    #[test]
    fn differences_are_reported() {
        let large = [("cache.entries", "10"), ("storage.memory_limit", "500000000"), ("cache.directory", "")];
        check("large", &large, &[]);
        check(
            "small",
            &large,
            &[
                "docs/configuration.md has `cache.entries` = `5` for small: expected 10",
                "docs/configuration.md has `storage.memory_limit` = `10 MB` for small: expected 500000000",
            ],
        );
        check(
            "large",
            &[large[0], large[1], large[2], ("new.key", "1")],
            &["docs/configuration.md has no row for `new.key`"],
        );
        check(
            "large",
            &large[..2],
            &["docs/configuration.md has a row for the unknown setting `cache.directory`"],
        );
        check("huge", &large, &["docs/configuration.md has no column for the profile huge"]);
    }
}
