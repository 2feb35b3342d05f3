//! Splits Rust source into the passages that people read: doc comments, comments and string
//! literals.

use std::iter::Peekable;
use std::str::CharIndices;

/// A comment or a string literal. Consecutive comment lines form one passage, without their
/// markers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) kind: Kind,
    /// Line of the beginning, from 1.
    pub(super) line: usize,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `///`, `//!`, `/** */` and `/*! */`.
    Docs,
    /// `//` and `/* */`.
    Comment,
    /// The text between the quotation marks of a string literal, with escapes as written.
    Literal,
}

/// Returns the passages of a source text in their order.
pub(super) fn passages(source: &str) -> Vec<Passage> {
    let mut lexer = Lexer { source, chars: source.char_indices().peekable(), line: 1, passages: Vec::new() };
    lexer.run();
    lexer.passages
}

/// Replaces code (in fenced blocks and between backticks) by a placeholder and keeps the line
/// breaks.
pub(super) fn without_code(text: &str) -> String {
    let mut is_fenced = false;
    let mut prose = String::with_capacity(text.len());
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        is_fenced ^= is_fence;
        if !is_fenced && !is_fence {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    let mut is_code = false;
    let mut plain = String::with_capacity(prose.len());
    for c in prose.chars() {
        match c {
            '`' => {
                is_code = !is_code;
                plain.push('`');
            }
            '\n' => plain.push('\n'),
            _ if is_code => {}
            other => plain.push(other),
        }
    }
    plain
}

struct Lexer<'a> {
    source: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
    passages: Vec<Passage>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some((at, c)) = self.next() {
            match (c, self.peek()) {
                ('/', Some('/')) => self.line_comment(at),
                ('/', Some('*')) => self.block_comment(at),
                ('"', _) => self.literal(at),
                ('r', Some('"' | '#')) if !self.is_in_word(at) => self.raw_literal(at),
                ('\'', _) => self.character(at),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Option<(usize, char)> {
        let next = self.chars.next();
        if matches!(next, Some((_, '\n'))) {
            self.line += 1;
        }
        next
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    /// Returns the offset of the next character.
    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.source.len(), |(at, _)| *at)
    }

    /// Returns whether an identifier other than a literal's prefix (`b`, `c`) ends before an
    /// offset.
    fn is_in_word(&self, at: usize) -> bool {
        let before = self.source[..at].trim_end_matches(['b', 'c']);
        before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    }

    fn line_comment(&mut self, start: usize) {
        let line = self.line;
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
        let text = &self.source[start..self.offset()];
        let (kind, text) = match text.strip_prefix("///").or_else(|| text.strip_prefix("//!")) {
            Some(docs) if !docs.starts_with('/') => (Kind::Docs, docs),
            _ => (Kind::Comment, text.trim_start_matches('/')),
        };
        let text = text.strip_prefix(' ').unwrap_or(text).trim_end();
        let lines_of = |passage: &Passage| passage.text.lines().count().max(1);
        match self.passages.last_mut() {
            Some(last) if last.kind == kind && last.line + lines_of(last) == line => {
                last.text.push('\n');
                last.text.push_str(if text.is_empty() { " " } else { text });
            }
            _ => self.passages.push(Passage { kind, line, text: text.to_owned() }),
        }
    }

    fn block_comment(&mut self, start: usize) {
        let line = self.line;
        let mut depth = 0_usize;
        let mut before = '/';
        while let Some((_, c)) = self.next() {
            match (before, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {}
            }
            // A delimiter does not share a character with the next.
            before = if matches!((before, c), ('/', '*') | ('*', '/')) { ' ' } else { c };
            if depth == 0 {
                break;
            }
        }
        let text = &self.source[start..self.offset()];
        let kind =
            if text.starts_with("/**") || text.starts_with("/*!") { Kind::Docs } else { Kind::Comment };
        self.passages.push(Passage { kind, line, text: text.to_owned() });
    }

    fn literal(&mut self, start: usize) {
        let line = self.line;
        while let Some((at, c)) = self.next() {
            match c {
                '\\' => drop(self.next()),
                '"' => return self.push_literal(line, start + 1, at),
                _ => {}
            }
        }
    }

    fn raw_literal(&mut self, start: usize) {
        let line = self.line;
        let mut hashes = 0;
        while self.peek() == Some('#') {
            hashes += 1;
            self.next();
        }
        // `r#name` is an identifier.
        if self.peek() != Some('"') {
            return;
        }
        self.next();
        let end = format!("\"{}", "#".repeat(hashes));
        let from = start + 1 + hashes + 1;
        let length = self.source[from..].find(&end).unwrap_or(self.source.len() - from);
        while self.offset() < (from + length + end.len()).min(self.source.len()) {
            self.next();
        }
        self.push_literal(line, from, from + length);
    }

    fn push_literal(&mut self, line: usize, from: usize, to: usize) {
        let text = self.source[from..to].to_owned();
        self.passages.push(Passage { kind: Kind::Literal, line, text });
    }

    /// Skips a character literal. A lifetime has no second quotation mark.
    fn character(&mut self, start: usize) {
        let rest = &self.source[start + 1..];
        let mut chars = rest.chars();
        let length = match (chars.next(), chars.next()) {
            (Some('\\'), Some(escaped)) => {
                let from = 1 + escaped.len_utf8();
                rest[from..].find('\'').map(|at| from + at + 1)
            }
            (Some(c), Some('\'')) => Some(c.len_utf8() + 1),
            _ => None,
        };
        let end = start + 1 + length.unwrap_or(0);
        while self.offset() < end {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[(Kind, usize, &str)]) {
        let found = passages(source);
        let found: Vec<_> = found.iter().map(|it| (it.kind, it.line, it.text.as_str())).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn comment_lines_form_passages() {
        check(
            "//! One.\n//!\n//! Two.\n\nfn f() {} // three\n// four\n    /// Five.\n",
            &[(Kind::Docs, 1, "One.\n \nTwo."), (Kind::Comment, 5, "three\nfour"), (Kind::Docs, 7, "Five.")],
        );
        check(
            "/* a /* b */ c */ x /*! d */",
            &[(Kind::Comment, 1, "/* a /* b */ c */"), (Kind::Docs, 1, "/*! d */")],
        );
    }

    #[test]
    fn string_literals_are_found() {
        check(
            "f(\"a // b\", '\"', b\"c\\\"d\", 'x: loop {}, r#\"e\n\"f\"\"#, '\\'', r#type, \"g\")\n\"h\"",
            &[
                (Kind::Literal, 1, "a // b"),
                (Kind::Literal, 1, "c\\\"d"),
                (Kind::Literal, 1, "e\n\"f\""),
                (Kind::Literal, 2, "g"),
                (Kind::Literal, 3, "h"),
            ],
        );
        check("fn f<'a>(x: &'a str) -> char { 'ä' } // b", &[(Kind::Comment, 1, "b")]);
        check("br\"x\"; cr#\"y\"#; \"open", &[(Kind::Literal, 1, "x"), (Kind::Literal, 1, "y")]);
    }

    #[test]
    fn code_is_removed_from_prose() {
        assert_eq!(without_code("a `b` c\n```\nd\n```\ne"), "a `` c\n\n\n\ne\n");
    }
}
