//! Explains failures of tests that need a variable which tests do not see.

use crate::plain_text::plain;
use crate::{Environment, Test};

/// Variables that are named in one explanation.
const NAMES_MAX: usize = 5;
/// Length of the shortest name that counts.
const NAME_BYTES_MIN: usize = 3;

/// Returns text to append to the output of a failed test that mentions variables which the user
/// has set and the test does not see; `None` if it mentions none.
///
/// A name without an underscore counts only in quotation marks, since it may be any word.
pub(crate) fn explain(test: &Test, environment: &Environment, output: &[u8]) -> Option<String> {
    let visible = environment.visible(&test.env);
    let output = plain(output);
    let is_withheld = |name: &str| {
        !visible.contains_key(name)
            && !test.set.contains_key(name)
            && !matches!(name, "HOME" | "TMPDIR")
            && !name.starts_with("GREENWAVE_")
    };
    let candidates = environment.texts().map(|(name, _)| name);
    let names: Vec<&str> = candidates
        .filter(|name| name.len() >= NAME_BYTES_MIN && is_withheld(name) && mentions(&output, name))
        .take(NAMES_MAX)
        .collect();
    let last = names.last()?;
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let (subject, pronoun) = match names.as_slice() {
        [_] => (format!("{last} is set, but withheld from tests"), "it"),
        _ => (format!("{} are set, but withheld from tests", names.join(", ")), "them"),
    };
    Some(format!(
        "\nhint: {subject}: declare {pronoun} as `env = [{list}]` in greenwave.toml \
         (`greenwave test --init` creates it)\n"
    ))
}

/// Returns whether a text contains a name as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let is_distinctive = name.contains('_');
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
        let is_part = |side: Option<char>| side.is_some_and(|it| it.is_alphanumeric() || it == '_');
        let is_quoted = before == after && before.is_some_and(|mark| matches!(mark, '\'' | '"' | '`'));
        !is_part(before) && !is_part(after) && (is_distinctive || is_quoted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(output: &str) -> Option<String> {
        let names = ["DATABASE_URL", "USER", "PATH", "HOME", "_", "DECLARED_X"];
        let environment = Environment::new(names.map(|name| (name.into(), "1".into())));
        let test = Test { env: vec!["DECLARED_*".to_owned()], ..Test::new("t", ["true"]) };
        explain(&test, &environment, output.as_bytes())
    }

    #[test]
    fn a_withheld_variable_that_the_output_names_is_explained() {
        let text = hint("E   KeyError: 'DATABASE_URL'\n").unwrap_or_default();
        assert_eq!(
            text,
            "\nhint: DATABASE_URL is set, but withheld from tests: declare it as \
             `env = [\"DATABASE_URL\"]` in greenwave.toml (`greenwave test --init` creates it)\n"
        );
        let both = hint("KeyError: 'USER', DATABASE_URL not set").unwrap_or_default();
        assert!(both.contains("env = [\"DATABASE_URL\", \"USER\"]"), "{both}");
    }

    #[test]
    fn other_words_are_not_explained() {
        for output in ["", "no USER here", "MY_DATABASE_URL", "'PATH' 'HOME' DECLARED_X", "DATABASE_URLS"] {
            assert_eq!(hint(output), None, "{output}");
        }
    }
}
