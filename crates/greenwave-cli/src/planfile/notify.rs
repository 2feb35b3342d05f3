//! Reads the command of `notify`.

use crate::diagnostic::{Diagnostic, Document};
use crate::notify_words::runs_placeholder;
use crate::reader::Table;

/// Reads the command.
///
/// # Errors
/// A [`Diagnostic`] if an interpreter would run a text with a placeholder.
pub(super) fn read(document: &Document, root: &mut Table<'_>) -> Result<Vec<String>, Diagnostic> {
    let words = root.texts("notify")?.map(|list| list.value).unwrap_or_default();
    let texts: Vec<String> = words.iter().map(|word| word.value.clone()).collect();
    if let Some(at) = runs_placeholder(&texts) {
        let expected = "a variable such as `$GREENWAVE_REASON` in the text of a shell, which would run \
            the words of an agent in the place of a placeholder";
        let message = format!("invalid value `{:?}` for `notify`: expected {expected}", texts[at]);
        return Err(document.error(words[at].at.clone(), message));
    }
    Ok(texts)
}
