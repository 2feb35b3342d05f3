//! Replaces placeholders in the arguments of an agent's command.
//!
//! Arguments are often code in another language, full of braces: JSON, shell, a template. So only
//! `{feature}`, `{attempt}`, `{candidate}`, `{prompt_file}`, `{directory}` and `{prompt}` are
//! placeholders, and all other braces are literal. Two opening braces before a name mean a literal
//! one: `{{prompt}}` is the text `{prompt}`.

use std::borrow::Cow;

/// The placeholders that an argument of an agent's command may contain.
pub const PLACEHOLDERS: [&str; 6] =
    ["{feature}", "{attempt}", "{candidate}", "{prompt_file}", "{directory}", "{prompt}"];

/// Minimum similarity (Jaro-Winkler, 0 to 1) of a name in braces that counts as misspelt.
const SIMILARITY_MIN: f64 = 0.85;

/// An argument that contains a placeholder that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown placeholder `{{{name}}}`: expected {}; write `{{{{{name}}}}}` for the text itself",
    PLACEHOLDERS.map(|name| format!("`{name}`")).join(", ")
)]
pub struct UnknownPlaceholder {
    /// The name between the braces.
    pub name: String,
}

/// Part of an argument.
enum ArgumentPart<'a> {
    Text(&'a str),
    /// A name in braces.
    Name(&'a str),
    /// A name in braces that are escaped.
    Escaped(&'a str),
}

/// Checks the arguments of a command for misspelt placeholders.
///
/// A name in braces that is not a placeholder is an error if it is the whole argument, or the whole
/// value of an option (`--id={name}`), or if it resembles a placeholder. Elsewhere it is text, as
/// in `awk '{print}'` and `${HOME}`.
///
/// # Errors
/// [`UnknownPlaceholder`] with the first one.
pub fn check_placeholders<S: AsRef<str>>(arguments: &[S]) -> Result<(), UnknownPlaceholder> {
    for argument in arguments.iter().map(AsRef::as_ref) {
        for (before, part) in parts(argument) {
            let ArgumentPart::Name(name) = part else { continue };
            let is_whole = before.len() + name.len() + 2 == argument.len()
                && (before.is_empty() || before.starts_with('-') && before.ends_with('='));
            if !is_placeholder(name) && !before.ends_with(['@', '%']) && (is_whole || is_similar(name)) {
                return Err(UnknownPlaceholder { name: name.to_owned() });
            }
        }
    }
    Ok(())
}

/// Returns an argument with its placeholders replaced. `value` returns the text of a placeholder by
/// its name without braces.
pub(crate) fn expand<'v>(argument: &str, mut value: impl FnMut(&str) -> Cow<'v, str>) -> String {
    let mut expanded = String::with_capacity(argument.len());
    for (_, part) in parts(argument) {
        match part {
            ArgumentPart::Text(text) => expanded.push_str(text),
            ArgumentPart::Name(name) if is_placeholder(name) => expanded.push_str(&value(name)),
            ArgumentPart::Name(name) | ArgumentPart::Escaped(name) => {
                expanded.push('{');
                expanded.push_str(name);
                expanded.push('}');
            }
        }
    }
    expanded
}

/// Returns whether one of the arguments contains one of the placeholders, named without braces.
pub(crate) fn contains(arguments: &[String], names: &[&str]) -> bool {
    let is_named = |part: &ArgumentPart<'_>| matches!(part, ArgumentPart::Name(name) if names.contains(name));
    arguments.iter().any(|argument| parts(argument).any(|(_, part)| is_named(&part)))
}

fn is_placeholder(name: &str) -> bool {
    PLACEHOLDERS.iter().any(|listed| listed[1..listed.len() - 1] == *name)
}

fn is_similar(name: &str) -> bool {
    PLACEHOLDERS
        .iter()
        .any(|listed| strsim::jaro_winkler(name, &listed[1..listed.len() - 1]) >= SIMILARITY_MIN)
}

/// Splits an argument into text and names in braces, each with the text before it.
fn parts(argument: &str) -> impl Iterator<Item = (&str, ArgumentPart<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &argument[at..];
        if rest.is_empty() {
            return None;
        }
        let before = &argument[..at];
        if let Some((name, length)) = braced(before, rest) {
            let is_escaped = rest.starts_with("{{");
            at += length;
            return Some((
                before,
                if is_escaped { ArgumentPart::Escaped(name) } else { ArgumentPart::Name(name) },
            ));
        }
        // The next brace that opens a name.
        let next = rest.char_indices().skip(1).map(|(next, _)| next);
        let next = next.filter(|&next| rest[next..].starts_with('{'));
        let length = next.into_iter().find(|&next| braced(&argument[..at + next], &rest[next..]).is_some());
        let length = length.unwrap_or(rest.len());
        at += length;
        Some((before, ArgumentPart::Text(&rest[..length])))
    })
}

/// Returns the name in braces at the start of a text, and its length with the braces. The name of a
/// shell variable, `${name}`, is text.
fn braced<'a>(before: &str, text: &'a str) -> Option<(&'a str, usize)> {
    if before.ends_with('$') {
        return None;
    }
    let opening = if text.starts_with("{{") { 2 } else { 1 };
    let inside = text.strip_prefix('{')?;
    let inside = inside.strip_prefix('{').unwrap_or(inside);
    let length = inside.find('}')?;
    let name = &inside[..length];
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    // `{{name}}`, and `{{name}` as well.
    let closing = if opening == 2 && inside[length..].starts_with("}}") { 2 } else { 1 };
    is_name.then_some((name, opening + length + closing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Cow<'static, str> {
        match name {
            "feature" => "lexer".into(),
            "attempt" => "2".into(),
            // Replaced text is not searched again.
            "prompt" => "use {feature}".into(),
            _ => format!("/{name}").into(),
        }
    }

    #[test]
    fn placeholders_are_replaced_and_other_braces_are_text() {
        let table = [
            ("{feature}", "lexer"),
            ("--id={feature}-{attempt}", "--id=lexer-2"),
            ("{prompt}", "use {feature}"),
            ("@{prompt_file}:{directory}", "@/prompt_file:/directory"),
            ("{{feature}}", "{feature}"),
            ("{{feature}", "{feature}"),
            (r#"{"feature": {"id": "{feature}"}}"#, r#"{"feature": {"id": "lexer"}}"#),
            (r#"{"a":{"b":{}}}"#, r#"{"a":{"b":{}}}"#),
            ("echo ${HOME} {} {a,b} {1..3} { ls; }", "echo ${HOME} {} {a,b} {1..3} { ls; }"),
            ("awk '{print}'", "awk '{print}'"),
            ("echo ${feature} $feature", "echo ${feature} $feature"),
            ("git log @{upstream} stash@{0}", "git log @{upstream} stash@{0}"),
            ("{{ .Name }} {{.feature}}", "{{ .Name }} {{.feature}}"),
            ("ä{feature}ö", "älexerö"),
            ("{feature", "{feature"),
            ("", ""),
        ];
        for (argument, expected) in table {
            assert_eq!(expand(argument, value), expected, "{argument}");
            assert_eq!(check_placeholders(&[argument]), Ok(()), "{argument}");
        }
    }

    #[test]
    fn a_misspelt_placeholder_is_an_error() {
        for (argument, name) in [
            ("{featur}", "featur"),
            ("run {promptfile} now", "promptfile"),
            ("{prompt_fil}", "prompt_fil"),
            ("--model={model}", "model"),
            ("{model}", "model"),
            ("{atempt}/{feature}", "atempt"),
        ] {
            let error = check_placeholders(&["fine {feature}", argument]).unwrap_err();
            assert_eq!(error.name, name, "{argument}");
        }
        let error = UnknownPlaceholder { name: "model".to_owned() };
        assert_eq!(
            error.to_string(),
            "unknown placeholder `{model}`: expected `{feature}`, `{attempt}`, `{candidate}`, \
             `{prompt_file}`, `{directory}`, `{prompt}`; write `{{model}}` for the text itself"
        );
    }

    #[test]
    fn arguments_are_searched_for_placeholders() {
        let arguments = ["-p", "x {prompt}"].map(str::to_owned);
        assert!(contains(&arguments, &["prompt", "prompt_file"]));
        assert!(!contains(&arguments, &["prompt_file"]));
        assert!(!contains(&["{{prompt}}".to_owned()], &["prompt"]));
    }
}
