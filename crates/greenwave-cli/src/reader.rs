//! Reads TOML tables key by key, so that each mistake is told with its place and nothing is ignored in silence.
//! Knows nothing of what the keys mean.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use greenwave::nearest;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Document};

/// A table of a document. Keys are taken out of it; [`finish`](Table::finish) refuses what is left.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    document: &'a Document,
    /// How the table is called in messages: `[[features]]`.
    name: String,
    /// The keys that lead to it, joined by points.
    path: String,
    at: Range<usize>,
    entries: BTreeMap<String, (Range<usize>, Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) at: Range<usize>,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub(crate) fn parse(document: &'a Document) -> Result<Self, Diagnostic> {
        match DeTable::parse(&document.text) {
            Ok(table) => Ok(Self::new(document, String::new(), String::new(), 0..0, table.into_inner())),
            Err(error) => {
                let message = error.message().replace('\n', ", ");
                Err(document.mistake(error.span().unwrap_or(0..0), format!("this is not TOML: {message}")))
            }
        }
    }

    fn new(document: &'a Document, name: String, path: String, at: Range<usize>, table: DeTable<'a>) -> Self {
        let entry = |(key, value): (Spanned<DeString<'a>>, Spanned<DeValue<'a>>)| {
            (key.get_ref().to_string(), (key.span(), value))
        };
        Self { document, name, path, at, entries: table.into_iter().map(entry).collect(), known: Vec::new() }
    }

    pub(crate) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// The keys that have not been taken, with their places.
    pub(crate) fn keys(&self) -> Vec<Placed<String>> {
        let placed =
            |(key, (at, _)): (&String, &(Range<usize>, _))| Placed { value: key.clone(), at: at.clone() };
        self.entries.iter().map(placed).collect()
    }

    fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    /// Takes a value of any kind.
    pub(crate) fn any(&mut self, key: &'static str) -> Option<Placed<DeValue<'a>>> {
        self.known.push(key);
        let value = self.take(key)?;
        Some(Placed { at: value.span(), value: value.into_inner() })
    }

    /// Takes a value of any kind whose key is only known at run time.
    pub(crate) fn any_named(&mut self, key: &str) -> Option<Placed<DeValue<'a>>> {
        let value = self.take(key)?;
        Some(Placed { at: value.span(), value: value.into_inner() })
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Result<Option<Placed<T>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(None) };
        match read(&found.value) {
            Some(value) => Ok(Some(Placed { value, at: found.at })),
            None => Err(self.wrong(key, &found, accepted)),
        }
    }

    fn wrong(&self, key: &str, found: &Placed<DeValue<'_>>, accepted: &str) -> Diagnostic {
        let message = format!("`{key}` is {}; {accepted} is wanted", describe(&found.value));
        self.document.mistake(found.at.clone(), message)
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<Placed<String>>, Diagnostic> {
        self.typed(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn required_text(&mut self, key: &'static str) -> Result<Placed<String>, Diagnostic> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn missing(&self, key: &str) -> Diagnostic {
        // Probably it is there, and misspelt.
        let alike = |other: &&String| nearest(other, &mut [key].into_iter()).is_some();
        if let Some((other, (at, _))) = self.entries.iter().find(|(other, _)| alike(other)) {
            return self.unknown(other, at.clone(), &format!("did you mean `{key}`?"));
        }
        let whose = if self.name.is_empty() { "the file".to_owned() } else { self.name.clone() };
        self.document.mistake(self.at(), format!("{whose} has no `{key}`"))
    }

    pub(crate) fn count(&mut self, key: &'static str, least: u32) -> Result<Option<Placed<u32>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(None) };
        let number = whole(&found.value);
        match number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number >= least) {
            Some(value) => Ok(Some(Placed { value, at: found.at })),
            None => {
                let most =
                    number.filter(|number| *number > u64::from(least)).map(|_| format!(" to {}", u32::MAX));
                Err(self.wrong(
                    key,
                    &found,
                    &format!("a whole number from {least}{}", most.unwrap_or_default()),
                ))
            }
        }
    }

    /// Takes a number from 0.
    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<Placed<f64>>, Diagnostic> {
        self.typed(key, "a number from 0", |value| {
            number(value).filter(|number| number.is_finite() && *number >= 0.0)
        })
    }

    pub(crate) fn duration(&mut self, key: &'static str) -> Result<Option<Placed<Duration>>, Diagnostic> {
        self.typed(key, DURATION, duration)
    }

    pub(crate) fn texts(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Placed<Vec<Placed<String>>>>, Diagnostic> {
        let accepted = "a list of texts";
        let Some(found) = self.any(key) else { return Ok(None) };
        let DeValue::Array(array) = &found.value else { return Err(self.wrong(key, &found, accepted)) };
        let mut texts = Vec::new();
        for item in array.iter() {
            let placed = Placed { at: item.span(), value: item.get_ref().clone() };
            let text = item.get_ref().as_str().ok_or_else(|| self.wrong(key, &placed, accepted))?;
            texts.push(Placed { value: text.to_owned(), at: item.span() });
        }
        Ok(Some(Placed { value: texts, at: found.at }))
    }

    /// Takes a command: its words, or a line for the shell.
    pub(crate) fn words(&mut self, key: &'static str) -> Result<Option<Placed<Vec<String>>>, Diagnostic> {
        let line = self.entries.get(key).and_then(|(_, value)| value.get_ref().as_str().map(str::to_owned));
        if let Some(line) = line {
            let at = self.any(key).map_or(0..0, |found| found.at);
            let shell = ["sh".to_owned(), "-c".to_owned(), line];
            return Ok(Some(Placed { value: shell.to_vec(), at }));
        }
        let words = self.texts(key)?;
        Ok(words.map(|list| Placed {
            value: list.value.into_iter().map(|word| word.value).collect(),
            at: list.at,
        }))
    }

    /// Takes a list of texts, if it is one.
    pub(crate) fn list_of_texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let (_, value) = self.entries.get(key)?;
        let DeValue::Array(array) = value.get_ref() else { return None };
        let texts: Option<Vec<String>> =
            array.iter().map(|item| Some(item.get_ref().as_str()?.to_owned())).collect();
        texts.inspect(|_| drop(self.any(key)))
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, Diagnostic> {
        Ok(self.typed(key, "true or false", DeValue::as_bool)?.map(|flag| flag.value))
    }

    /// Takes texts with names (`{ MODE = "fast" }`).
    pub(crate) fn texts_by_name(
        &mut self,
        key: &'static str,
    ) -> Result<BTreeMap<String, String>, Diagnostic> {
        let mut texts = BTreeMap::new();
        let Some(table) = self.table(key)? else { return Ok(texts) };
        for (name, (_, value)) in table.entries {
            let placed = Placed { at: value.span(), value: value.into_inner() };
            let text = placed.value.as_str().ok_or_else(|| self.wrong(&name, &placed, "a text"))?;
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
            _ => Err(self.wrong(key, &found, "a table")),
        }
    }

    /// Takes all that is left, each of it a table.
    pub(crate) fn tables_by_name(
        mut self,
        what: &str,
    ) -> Result<Vec<(Placed<String>, Table<'a>)>, Diagnostic> {
        let mut tables = Vec::new();
        for (key, (at, value)) in std::mem::take(&mut self.entries) {
            let placed = Placed { at: value.span(), value: value.into_inner() };
            let DeValue::Table(table) = placed.value else {
                return Err(self.wrong(&key, &placed, "a table"));
            };
            let path = self.path_of(&key);
            let table = Self::new(self.document, format!("{what} `{key}`"), path, at.clone(), table);
            tables.push((Placed { value: key, at }, table));
        }
        Ok(tables)
    }

    /// Takes a list of tables (`[[key]]`).
    pub(crate) fn tables(&mut self, key: &'static str) -> Result<Vec<Table<'a>>, Diagnostic> {
        let Some(found) = self.any(key) else { return Ok(Vec::new()) };
        let path = self.path_of(key);
        let accepted = format!("a list of tables ([[{path}]])");
        let DeValue::Array(array) = found.value else { return Err(self.wrong(key, &found, &accepted)) };
        let mut tables = Vec::new();
        for item in array {
            let placed = Placed { at: item.span(), value: item.into_inner() };
            let DeValue::Table(table) = placed.value else { return Err(self.wrong(key, &placed, &accepted)) };
            tables.push(Self::new(self.document, format!("[[{path}]]"), path.clone(), placed.at, table));
        }
        Ok(tables)
    }

    /// Counts with names (`{ gpu = 1 }`), each with its place.
    pub(crate) fn counts(&mut self, key: &'static str) -> Result<BTreeMap<String, Placed<u32>>, Diagnostic> {
        let mut counts = BTreeMap::new();
        let Some(table) = self.table(key)? else { return Ok(counts) };
        for (name, (at, value)) in table.entries {
            let placed = Placed { at: value.span(), value: value.into_inner() };
            let count = whole(&placed.value).and_then(|number| u32::try_from(number).ok());
            let value = count.ok_or_else(|| self.wrong(&name, &placed, "a whole number from 0"))?;
            counts.insert(name, Placed { value, at });
        }
        Ok(counts)
    }

    /// Refuses keys that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Diagnostic> {
        let Some((key, (at, _))) = self.entries.iter().min_by_key(|(_, (at, _))| at.start) else {
            return Ok(());
        };
        let hint = match nearest(key, &mut self.known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known are {}", list(&self.known)),
        };
        Err(self.unknown(key, at.clone(), &hint))
    }

    fn unknown(&self, key: &str, at: Range<usize>, hint: &str) -> Diagnostic {
        let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
        self.document.mistake(at, format!("unknown key `{key}`{place}; {hint}"))
    }
}

pub(crate) const DURATION: &str = "a duration like \"90s\", \"5m\" or \"1h\", or a whole number of seconds,";

pub(crate) fn whole(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(integer) => {
            u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
        }
        _ => None,
    }
}

pub(crate) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
        other => whole(other).map(|whole| whole as f64),
    }
}

pub(crate) fn duration(value: &DeValue<'_>) -> Option<Duration> {
    match value {
        DeValue::String(text) => humantime::parse_duration(text).ok(),
        other => whole(other).map(Duration::from_secs),
    }
}

pub(crate) fn bytes(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::String(text) => text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()),
        other => whole(other),
    }
}

pub(crate) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(integer) => format!("the number {integer}"),
        DeValue::Float(float) => format!("the number {float}"),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(crate) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
