//! Reads typed values out of TOML tables. Errors carry their location, and unknown keys are errors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use greenwave::{check_expression, check_pattern, nearest};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Document};
use crate::text::list;

/// Name of the file with a project's settings and tests.
pub(crate) const SETTINGS_FILE: &str = "greenwave.toml";

/// Description of the values that are accepted as a duration.
pub(crate) const DURATION: &str = "a duration like \"90s\", \"5m\" or \"1h\", or a whole number of seconds";
/// Like [`DURATION`], for keys that do not accept zero.
pub(crate) const DURATION_ABOVE_ZERO: &str =
    "a duration above zero like \"90s\", \"5m\" or \"1h\", or a whole number of seconds";

/// A table of a document. Keys are taken out of it one by one; [`finish`](Table::finish) rejects
/// the remaining ones.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    document: &'a Document,
    /// Name of the table in messages, such as `[[features]]`; empty for the whole document.
    name: String,
    /// Keys that lead to the table, joined by dots.
    path: String,
    at: Range<usize>,
    entries: BTreeMap<String, (Range<usize>, Spanned<DeValue<'a>>)>,
    /// Keys that were asked for, whether they exist or not.
    accepted: Vec<&'static str>,
}

#[cfg(test)]
thread_local! {
    /// Name and accepted keys of each table that was read on this thread.
    pub(crate) static FINISHED: std::cell::RefCell<Vec<(String, Vec<&'static str>)>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// A value with its location in the document.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: Range<usize>,
}

impl<'a> Table<'a> {
    /// Parses a document.
    pub(crate) fn parse(document: &'a Document) -> Result<Self, Diagnostic> {
        match DeTable::parse(&document.text) {
            Ok(table) => Ok(Self::new(document, String::new(), String::new(), 0..0, table.into_inner())),
            Err(error) => {
                let message = error.message().replace('\n', ", ");
                Err(document.error(error.span().unwrap_or(0..0), format!("invalid TOML: {message}")))
            }
        }
    }

    fn new(document: &'a Document, name: String, path: String, at: Range<usize>, table: DeTable<'a>) -> Self {
        let entry = |(key, value): (Spanned<DeString<'a>>, Spanned<DeValue<'a>>)| {
            (key.get_ref().to_string(), (key.span(), value))
        };
        Self {
            document,
            name,
            path,
            at,
            entries: table.into_iter().map(entry).collect(),
            accepted: Vec::new(),
        }
    }

    /// Returns the location of the table.
    pub(crate) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// Returns the keys that have not been taken, with their locations.
    pub(crate) fn keys(&self) -> Vec<Located<String>> {
        let located =
            |(key, (at, _)): (&String, &(Range<usize>, _))| Located { value: key.clone(), at: at.clone() };
        self.entries.iter().map(located).collect()
    }

    /// Returns the location of a key that has not been taken.
    pub(crate) fn location(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get(key).map(|(at, _)| at.clone())
    }

    fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    /// Takes a value of any type.
    pub(crate) fn any(&mut self, key: &'static str) -> Option<Located<DeValue<'a>>> {
        self.accepted.push(key);
        let value = self.take(key)?;
        Some(Located { at: value.span(), value: value.into_inner() })
    }

    /// Takes a value of any type by a key that is not a constant.
    pub(crate) fn any_named(&mut self, key: &str) -> Option<Located<DeValue<'a>>> {
        let value = self.take(key)?;
        Some(Located { at: value.span(), value: value.into_inner() })
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Located<T>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(None) };
        match read(&found.value) {
            Some(value) => Ok(Some(Located { value, at: found.at })),
            None => Err(self.invalid(key, &found, accepted)),
        }
    }

    fn invalid(&self, key: &str, found: &Located<DeValue<'_>>, expected: &str) -> Diagnostic {
        self.document.error(found.at.clone(), invalid_value(&found.value, key, expected))
    }

    /// Takes a string.
    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<Located<String>>, Diagnostic> {
        self.typed(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a day, as a TOML date or a string.
    pub(crate) fn day(&mut self, key: &'static str) -> Result<Option<Located<String>>, Diagnostic> {
        self.typed(key, "a day like 2030-12-31", |value| match value {
            DeValue::Datetime(day) => Some(day.to_string()),
            value => value.as_str().map(str::to_owned),
        })
    }

    /// Takes a regular expression.
    pub(crate) fn expression(&mut self, key: &'static str) -> Result<Option<String>, Diagnostic> {
        let Some(found) = self.text(key)? else { return Ok(None) };
        match check_expression(&found.value) {
            Ok(()) => Ok(Some(found.value)),
            Err(reason) => {
                let message = format!("invalid value `{:?}` for `{key}`: {reason}", found.value);
                Err(self.document.error(found.at, message))
            }
        }
    }

    /// Takes one of several strings, which `read` translates.
    pub(crate) fn choice<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Diagnostic> {
        let read = |value: &DeValue<'a>| value.as_str().and_then(read);
        Ok(self.typed(key, accepted, read)?.map(|found| found.value))
    }

    /// Returns whether the value of a key is a list. Leaves the value.
    pub(crate) fn is_list(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|(_, value)| matches!(value.get_ref(), DeValue::Array(_)))
    }

    /// Returns whether the value of a key is a table. Leaves the value.
    pub(crate) fn is_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|(_, value)| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// Takes a string that must exist.
    pub(crate) fn required_text(&mut self, key: &'static str) -> Result<Located<String>, Diagnostic> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// Returns the error for a required key that does not exist. If a similar key exists, the error
    /// is about that one, which is probably misspelled.
    pub(crate) fn missing(&self, key: &str) -> Diagnostic {
        let similar = |other: &&String| nearest(other, &mut [key].into_iter()).is_some();
        if let Some((other, (at, _))) = self.entries.iter().find(|(other, _)| similar(other)) {
            return self.unknown(other, at.clone(), &format!("; did you mean `{key}`?"));
        }
        self.document.error(self.at(), format!("missing key `{key}`{}", self.place()))
    }

    /// Takes a whole number that is at least `min`.
    pub(crate) fn count(&mut self, key: &'static str, min: u32) -> Result<Option<Located<u32>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(None) };
        let number = whole(&found.value);
        if let Some(value) = number.and_then(|it| u32::try_from(it).ok()).filter(|it| *it >= min) {
            return Ok(Some(Located { value, at: found.at }));
        }
        // The upper limit matters only to those who exceed it.
        let is_above = number.is_some_and(|number| number > u64::from(min));
        let max = if is_above { format!(" to {}", u32::MAX) } else { String::new() };
        Err(self.invalid(key, &found, &format!("a whole number from {min}{max}")))
    }

    /// Takes a whole number, as large as TOML allows.
    pub(crate) fn whole(&mut self, key: &'static str) -> Result<Option<Located<u64>>, Diagnostic> {
        self.typed(key, "a whole number from 0", whole)
    }

    /// Takes a finite number that is not negative.
    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<Located<f64>>, Diagnostic> {
        self.typed(key, "a number from 0", |value| {
            number(value).filter(|number| number.is_finite() && *number >= 0.0)
        })
    }

    /// Takes a duration above zero.
    pub(crate) fn time_limit(&mut self, key: &'static str) -> Result<Option<Duration>, Diagnostic> {
        let above_zero = |value: &DeValue<'_>| duration(value).filter(|limit| !limit.is_zero());
        Ok(self.typed(key, DURATION_ABOVE_ZERO, above_zero)?.map(|limit| limit.value))
    }

    /// Takes the path of a directory in the project.
    pub(crate) fn inner_dir(&mut self, key: &'static str) -> Result<Option<PathBuf>, Diagnostic> {
        self.text(key)?.map(|found| self.inner_path(key, &found)).transpose()
    }

    /// Takes a list of paths of directories in the project.
    pub(crate) fn inner_dirs(&mut self, key: &'static str) -> Result<Vec<PathBuf>, Diagnostic> {
        let found = self.texts(key)?.map(|list| list.value).unwrap_or_default();
        found.iter().map(|path| self.inner_path(key, path)).collect()
    }

    /// Returns a path without `.` components: the empty path for `.`.
    fn inner_path(&self, key: &str, found: &Located<String>) -> Result<PathBuf, Diagnostic> {
        let part = |part| match part {
            Component::Normal(name) => Some(Some(name)),
            Component::CurDir => Some(None),
            _ => None,
        };
        let parts: Option<Vec<_>> = Path::new(&found.value).components().map(part).collect();
        if let Some(parts) = parts {
            return Ok(parts.into_iter().flatten().collect());
        }
        let message =
            invalid_value(&DeValue::String(found.value.as_str().into()), key, "a path inside the project");
        Err(self.document.error(found.at.clone(), message))
    }

    /// Takes a list of patterns as in `.gitignore`.
    pub(crate) fn patterns(&mut self, key: &'static str) -> Result<Vec<String>, Diagnostic> {
        let patterns = self.texts(key)?.map(|list| list.value).unwrap_or_default();
        for pattern in &patterns {
            check_pattern(&pattern.value).map_err(|reason| {
                let message = format!(
                    "invalid value `{:?}` for `{key}`: expected a glob as in .gitignore: {reason}",
                    pattern.value
                );
                self.document.error(pattern.at.clone(), message)
            })?;
        }
        Ok(patterns.into_iter().map(|pattern| pattern.value).collect())
    }

    /// Takes a list of strings.
    pub(crate) fn texts(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Located<Vec<Located<String>>>>, Diagnostic> {
        let accepted = "a list of strings";
        let Some(found) = self.any(key) else { return Ok(None) };
        let DeValue::Array(array) = &found.value else { return Err(self.invalid(key, &found, accepted)) };
        let mut texts = Vec::new();
        for item in array.iter() {
            let located = Located { at: item.span(), value: item.get_ref().clone() };
            let text = item.get_ref().as_str().ok_or_else(|| self.invalid(key, &located, accepted))?;
            texts.push(Located { value: text.to_owned(), at: item.span() });
        }
        Ok(Some(Located { value: texts, at: found.at }))
    }

    /// Takes a list of strings without their locations; an empty one if the key does not exist.
    pub(crate) fn plain_texts(&mut self, key: &'static str) -> Result<Vec<String>, Diagnostic> {
        let texts = self.texts(key)?.map(|list| list.value).unwrap_or_default();
        Ok(texts.into_iter().map(|text| text.value).collect())
    }

    /// Takes a command: a list of words, or one string for the shell.
    pub(crate) fn words(&mut self, key: &'static str) -> Result<Option<Located<Vec<String>>>, Diagnostic> {
        let line = self.entries.get(key).and_then(|(_, value)| value.get_ref().as_str().map(str::to_owned));
        if let Some(line) = line {
            let at = self.any(key).map_or(0..0, |found| found.at);
            let shell = ["sh".to_owned(), "-c".to_owned(), line];
            return Ok(Some(Located { value: shell.to_vec(), at }));
        }
        let words = self.texts(key)?;
        Ok(words.map(|list| Located {
            value: list.value.into_iter().map(|word| word.value).collect(),
            at: list.at,
        }))
    }

    /// Takes a list of commands, each a list of words; an empty one if the key does not exist.
    pub(crate) fn commands(&mut self, key: &'static str) -> Result<Vec<Vec<String>>, Diagnostic> {
        let accepted = "a list of commands like [[\"npm\", \"ci\"]]";
        let Some(found) = self.any(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = &found.value else { return Err(self.invalid(key, &found, accepted)) };
        let mut commands = Vec::new();
        for item in array.iter() {
            let located = Located { at: item.span(), value: item.get_ref().clone() };
            let DeValue::Array(words) = item.get_ref() else {
                return Err(self.invalid(key, &located, accepted));
            };
            let words: Option<Vec<String>> =
                words.iter().map(|word| Some(word.get_ref().as_str()?.to_owned())).collect();
            let words = words.filter(|words| words.first().is_some_and(|program| !program.is_empty()));
            commands.push(words.ok_or_else(|| self.invalid(key, &located, accepted))?);
        }
        Ok(commands)
    }

    /// Takes a list of strings. Returns `None`, and leaves the value, if it is anything else.
    pub(crate) fn list_of_texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let (_, value) = self.entries.get(key)?;
        let DeValue::Array(array) = value.get_ref() else { return None };
        let texts: Option<Vec<String>> =
            array.iter().map(|item| Some(item.get_ref().as_str()?.to_owned())).collect();
        texts.inspect(|_| drop(self.any(key)))
    }

    /// Takes a list of whole numbers from 0 to `max`.
    pub(crate) fn whole_numbers(
        &mut self,
        key: &'static str,
        max: u8,
    ) -> Result<Option<Vec<i32>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(None) };
        let numbers = match &found.value {
            DeValue::Array(array) => {
                let number = |value: &DeValue<'_>| u8::try_from(whole(value)?).ok().filter(|n| *n <= max);
                array.iter().map(|item| number(item.get_ref()).map(i32::from)).collect()
            }
            _ => None,
        };
        let expected = format!("a list of whole numbers from 0 to {max}");
        numbers.map(Some).ok_or_else(|| self.invalid(key, &found, &expected))
    }

    /// Takes a boolean.
    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, Diagnostic> {
        Ok(self.typed(key, "true or false", DeValue::as_bool)?.map(|flag| flag.value))
    }

    /// Takes a table of strings (`{ MODE = "fast" }`).
    pub(crate) fn texts_by_name(
        &mut self,
        key: &'static str,
    ) -> Result<BTreeMap<String, String>, Diagnostic> {
        let mut texts = BTreeMap::new();
        let Some(table) = self.table(key)? else { return Ok(texts) };
        for (name, (_, value)) in table.entries {
            let located = Located { at: value.span(), value: value.into_inner() };
            let text = located.value.as_str().ok_or_else(|| self.invalid(&name, &located, "a string"))?;
            texts.insert(name, text.to_owned());
        }
        Ok(texts)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Takes a table.
    pub(crate) fn table(&mut self, key: &'static str) -> Result<Option<Table<'a>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(None) };
        match found.value {
            DeValue::Table(table) => {
                let path = self.path_of(key);
                Ok(Some(Self::new(self.document, format!("[{path}]"), path, found.at, table)))
            }
            _ => Err(self.invalid(key, &found, "a table")),
        }
    }

    /// Takes all remaining keys, which must be tables. In messages each is called `kind` and its
    /// key.
    pub(crate) fn tables_by_name(
        mut self,
        kind: &str,
    ) -> Result<Vec<(Located<String>, Table<'a>)>, Diagnostic> {
        let mut tables = Vec::new();
        for (key, (at, value)) in std::mem::take(&mut self.entries) {
            let located = Located { at: value.span(), value: value.into_inner() };
            let DeValue::Table(table) = located.value else {
                return Err(self.invalid(&key, &located, "a table"));
            };
            let path = self.path_of(&key);
            let table = Self::new(self.document, format!("{kind} `{key}`"), path, at.clone(), table);
            tables.push((Located { value: key, at }, table));
        }
        Ok(tables)
    }

    /// Takes a list of tables (`[[key]]`).
    pub(crate) fn tables(&mut self, key: &'static str) -> Result<Vec<Table<'a>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(Vec::new()) };
        let path = self.path_of(key);
        let accepted = format!("a list of tables ([[{path}]])");
        let DeValue::Array(array) = found.value else { return Err(self.invalid(key, &found, &accepted)) };
        let mut tables = Vec::new();
        for item in array {
            let located = Located { at: item.span(), value: item.into_inner() };
            let DeValue::Table(table) = located.value else {
                return Err(self.invalid(key, &located, &accepted));
            };
            tables.push(Self::new(self.document, format!("[[{path}]]"), path.clone(), located.at, table));
        }
        Ok(tables)
    }

    /// Takes a table of whole numbers (`{ gpu = 1 }`).
    pub(crate) fn counts(&mut self, key: &'static str) -> Result<BTreeMap<String, Located<u32>>, Diagnostic> {
        let mut counts = BTreeMap::new();
        let Some(table) = self.table(key)? else { return Ok(counts) };
        for (name, (at, value)) in table.entries {
            let located = Located { at: value.span(), value: value.into_inner() };
            let count = whole(&located.value).and_then(|number| u32::try_from(number).ok());
            let value = count.ok_or_else(|| self.invalid(&name, &located, "a whole number from 0"))?;
            counts.insert(name, Located { value, at });
        }
        Ok(counts)
    }

    /// Rejects the remaining keys, which are unknown.
    pub(crate) fn finish(self) -> Result<(), Diagnostic> {
        #[cfg(test)]
        FINISHED.with_borrow_mut(|finished| finished.push((self.name.clone(), self.accepted.clone())));
        let Some((key, (at, _))) = self.entries.iter().min_by_key(|(_, (at, _))| at.start) else {
            return Ok(());
        };
        Err(self.unknown(key, at.clone(), &suggestion(key, &self.accepted)))
    }

    fn unknown(&self, key: &str, at: Range<usize>, suggestion: &str) -> Diagnostic {
        self.document.error(at, format!("unknown key `{key}`{}{suggestion}", self.place()))
    }

    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) }
    }
}

/// Returns the end of a message about an unknown name: the nearest accepted name, or all of them.
pub(crate) fn suggestion(name: &str, accepted: &[&str]) -> String {
    match nearest(name, &mut accepted.iter().copied()) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!(": expected one of {}", list(accepted.iter().copied())),
    }
}

/// Returns the message about a value that a key does not accept.
pub(crate) fn invalid_value(value: &DeValue<'_>, key: &str, expected: &str) -> String {
    format!("invalid value `{}` for `{key}`: expected {expected}", as_toml(value))
}

/// Returns a value as TOML, with the contents of lists and tables left out.
fn as_toml(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(array) if array.is_empty() => "[]".to_owned(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    }
}

/// Returns a whole number that is not negative.
pub(crate) fn whole(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(integer) => {
            u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
        }
        _ => None,
    }
}

/// Returns a number, whole or not.
pub(crate) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
        other => whole(other).map(|whole| whole as f64),
    }
}

/// Returns a duration, from a string with a unit or a whole number of seconds.
pub(crate) fn duration(value: &DeValue<'_>) -> Option<Duration> {
    match value {
        DeValue::String(text) => humantime::parse_duration(text).ok(),
        other => whole(other).map(Duration::from_secs),
    }
}

/// Returns a size in bytes, from a string with a unit or a whole number.
pub(crate) fn bytes(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::String(text) => text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()),
        other => whole(other),
    }
}
