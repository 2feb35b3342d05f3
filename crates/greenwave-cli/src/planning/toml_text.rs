//! Writes values as TOML.

use toml::{Table, Value};

use crate::terminal_text::changes_direction;

/// Returns a value. Only texts of several lines take several lines.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains('\n') => lines(text),
        other => other_value(other),
    }
}

/// Returns the entries of a table, one per line. Keys in `first` come first.
pub(super) fn entries(table: &Table, first: &[&str]) -> String {
    let place = |key: &str| first.iter().position(|other| *other == key).unwrap_or(first.len());
    let mut keys: Vec<&String> = table.keys().collect();
    keys.sort_by_key(|key| place(key));
    keys.into_iter().map(|name| format!("{} = {}\n", key(name), value(&table[name]))).collect()
}

/// Returns a key, in quotation marks if it needs them.
pub(super) fn key(name: &str) -> String {
    let is_bare = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

fn other_value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(self::value).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let entry = |(name, value): (&String, &Value)| format!("{} = {}", key(name), self::value(value));
            format!("{{ {} }}", table.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.chars().map(|character| escaped(character, false)).collect::<String>())
}

fn lines(text: &str) -> String {
    let text: String = text.chars().map(|character| escaped(character, true)).collect();
    format!("\"\"\"\n{}\"\"\"", text.replace("\"\"", "\"\\\""))
}

fn escaped(character: char, is_in_lines: bool) -> String {
    match character {
        '\\' => "\\\\".to_owned(),
        '"' if !is_in_lines => "\\\"".to_owned(),
        '\n' if !is_in_lines => "\\n".to_owned(),
        '\t' | '\n' => character.to_string(),
        other if other.is_control() || changes_direction(other) => format!("\\u{:04X}", u32::from(other)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) {
        let original = toml::from_str::<Table>(text).unwrap();
        let written = entries(&original, &["b"]);
        assert_eq!(toml::from_str::<Table>(&written).unwrap(), original, "{written}");
    }

    #[test]
    fn written_values_are_read_back() {
        check("a = 1\nb = 1.5\nc = true\nd = 2026-11-30\ne = [1, [\"x\"]]\nf = { g = { h = -1 } }");
        check(r#"a = "\u0000\u007f\\ \" ' \r\n\t \u0085 ä""#);
        check(r#"a = "\n\"\"\"\"\" \\\n\"""#);
        check("a = \"\\u202E\u{2066}\"");
        check("\"a b\" = \"\"\n\"\" = \"\\n\"\na-b = inf");
    }

    #[test]
    fn a_written_value_reads_as_what_it_is() {
        let table = toml::from_str::<Table>("a = \"x\u{202e}y\"").unwrap();
        assert_eq!(entries(&table, &[]), "a = \"x\\u202Ey\"\n");
    }

    #[test]
    fn a_text_of_several_lines_is_written_in_lines() {
        let table = toml::from_str::<Table>(r#"a = "x\n  \"y\" \"\"\nz""#).unwrap();
        assert_eq!(entries(&table, &[]), "a = \"\"\"\nx\n  \"y\" \"\\\"\nz\"\"\"\n");
    }
}
