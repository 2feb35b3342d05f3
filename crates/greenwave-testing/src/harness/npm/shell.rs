//! Splits the shell line of a script into simple commands.

use std::ops::Range;

/// Operators between simple commands, longest first.
const OPERATORS: [&str; 7] = ["&&", "||", ";", "\n", "|&", "|", "&"];
/// Characters that make a line more than a list of simple commands.
const COMPLEX: [char; 7] = ['(', ')', '`', '<', '>', '{', '}'];

/// A word of a shell line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// The word without its quotes.
    pub(super) text: String,
    /// Bytes of the line that the word takes.
    pub(super) span: Range<usize>,
}

/// The simple commands of a shell line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Words of each command.
    pub(super) commands: Vec<Vec<Word>>,
    /// Whether the line succeeds exactly if all commands do, one after the other.
    pub(super) is_conjunction: bool,
}

/// Splits a line. Quotes and backslashes count; variables are not expanded.
pub(super) fn split(line: &str) -> Line {
    let mut splitter = Splitter { line, at: 0, found: Line { is_conjunction: true, ..Line::default() } };
    splitter.found.commands.push(Vec::new());
    while splitter.at < line.len() {
        splitter.step();
    }
    splitter.found.commands.retain(|command| !command.is_empty());
    splitter.found
}

struct Splitter<'l> {
    line: &'l str,
    at: usize,
    found: Line,
}

impl Splitter<'_> {
    fn step(&mut self) {
        let rest = &self.line[self.at..];
        if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            self.at += operator.len();
            self.found.is_conjunction &= *operator == "&&";
            self.found.commands.push(Vec::new());
        } else if let Some(blank) = rest.chars().next().filter(|it| it.is_whitespace()) {
            self.at += blank.len_utf8();
        } else {
            self.word();
        }
    }

    fn word(&mut self) {
        let start = self.at;
        let (mut text, mut quote) = (String::new(), None);
        let mut characters = self.line[start..].char_indices().peekable();
        let mut end = self.line.len();
        while let Some((at, character)) = characters.next() {
            match quote {
                Some(mark) if character == mark => quote = None,
                None if matches!(character, '"' | '\'') => quote = Some(character),
                None | Some('"') if character == '\\' => {
                    text.extend(characters.next().map(|(_, escaped)| escaped));
                }
                None if character.is_whitespace() || matches!(character, ';' | '&' | '|') => {
                    end = start + at;
                    break;
                }
                _ => {
                    let is_expanded = character == '$' && quote != Some('\'');
                    let is_complex = quote.is_none() && COMPLEX.contains(&character);
                    self.found.is_conjunction &= !is_expanded && !is_complex;
                    text.push(character);
                }
            }
        }
        self.at = end;
        if let Some(command) = self.found.commands.last_mut() {
            command.push(Word { text, span: start..end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, commands: &[&[&str]], is_conjunction: bool) {
        let split = split(line);
        let words: Vec<Vec<&str>> = split
            .commands
            .iter()
            .map(|command| command.iter().map(|word| word.text.as_str()).collect())
            .collect();
        assert_eq!(words, commands);
        assert_eq!(split.is_conjunction, is_conjunction, "{line}");
    }

    #[test]
    fn lines_are_split_into_commands_and_words() {
        check("", &[], true);
        check("node -r ./setup.js  t.js", &[&["node", "-r", "./setup.js", "t.js"]], true);
        check("a && b&&c", &[&["a"], &["b"], &["c"]], true);
        check("a; b", &[&["a"], &["b"]], false);
        check("a || true", &[&["a"], &["true"]], false);
        check("a & b | c", &[&["a"], &["b"], &["c"]], false);
        check(
            r#"bun --filter '*' test "x y" z\ w"#,
            &[&["bun", "--filter", "*", "test", "x y", "z w"]],
            true,
        );
        check("mocha \"a && b\"", &[&["mocha", "a && b"]], true);
        check("mocha $FILES", &[&["mocha", "$FILES"]], false);
        check("mocha '$FILES'", &[&["mocha", "$FILES"]], true);
        check("(cd a && b)", &[&["(cd", "a"], &["b)"]], false);
        check("a > out.txt", &[&["a", ">", "out.txt"]], false);
        check("unclosed 'quote && x", &[&["unclosed", "quote && x"]], true);
        check("ends with\\", &[&["ends", "with"]], true);
    }

    #[test]
    fn spans_cover_the_words_with_their_quotes() {
        let line = "jest  '--watch' ü";
        let split = split(line);
        let spans: Vec<&str> = split.commands[0].iter().map(|word| &line[word.span.clone()]).collect();
        assert_eq!(spans, ["jest", "'--watch'", "ü"]);
    }
}
