//! Selects tests by name.

use greenwave::Test;
use greenwave_testing::TestId;

use crate::error::CliError;
use crate::text::{list, printable};

/// Maximum number of test names in an error message.
const NAMES_MAX: usize = 8;

/// Returns the tests whose names contain one of the filters, or all tests without a filter.
///
/// # Errors
/// [`CliError::NoTests`] or [`CliError::NoSuchTest`] if that selects none.
pub(super) fn select(tests: &[Test], filters: &[String]) -> Result<Vec<TestId>, CliError> {
    if tests.is_empty() {
        return Err(CliError::NoTests);
    }
    let selected: Vec<TestId> =
        (0..tests.len()).filter(|index| is_named(&tests[*index], filters)).map(TestId::new).collect();
    if selected.is_empty() {
        let filters = filters.join("` or `");
        return Err(CliError::NoSuchTest { filters, names: names(tests.iter()) });
    }
    Ok(selected)
}

/// Returns whether a test's name contains one of the filters. Without a filter, it does.
pub(super) fn is_named(test: &Test, filters: &[String]) -> bool {
    is_selected(&test.name, filters)
}

/// Returns whether a name contains one of the filters. Without a filter, it does.
pub(super) fn is_selected(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// Returns the one test with this name, or else the one whose name contains it.
///
/// # Errors
/// Those of [`select`], and [`CliError::SeveralTests`].
pub(super) fn select_one(tests: &[Test], name: &str) -> Result<TestId, CliError> {
    if let Some(index) = tests.iter().position(|test| test.name == name) {
        return Ok(TestId::new(index));
    }
    match select(tests, &[name.to_owned()])?.as_slice() {
        [test] => Ok(*test),
        several => {
            let names = names(several.iter().map(|test| &tests[test.index()]));
            Err(CliError::SeveralTests { name: name.to_owned(), names })
        }
    }
}

/// Lists the first names.
fn names<'t>(tests: impl ExactSizeIterator<Item = &'t Test>) -> String {
    let more = if tests.len() > NAMES_MAX { ", ..." } else { "" };
    let names: Vec<String> = tests.take(NAMES_MAX).map(|test| printable(&test.name)).collect();
    list(names.iter().map(String::as_str)) + more
}
