//! Search/replace blocks, as aider and cline have their models write them:
//!
//! ```text
//! <<<<<<< SEARCH
//! the lines as they are
//! =======
//! the lines as they should be
//! >>>>>>> REPLACE
//! ```
//!
//! The searched lines must be in the file exactly once. They match exactly, or else apart from
//! white space at the ends of lines. Line endings are those of the file.

use super::EditProblem;
use super::lines::{Lines, without_ending};

/// One search/replace pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replacement<'t> {
    /// The path on the line before the block, if it is inside the fence.
    pub(crate) path: Option<&'t str>,
    search: Vec<&'t str>,
    replace: Vec<&'t str>,
}

/// Position inside a block.
enum BlockPart {
    Outside,
    Search,
    Replace,
}

/// Parses the blocks in a text.
///
/// # Errors
/// [`EditProblem::Malformed`] if a block is incomplete or ambiguous.
pub(crate) fn parse(text: &str) -> Result<Vec<Replacement<'_>>, EditProblem> {
    let mut found = Vec::new();
    let (mut part, mut before) = (BlockPart::Outside, None);
    let mut current = Replacement { path: None, search: Vec::new(), replace: Vec::new() };
    for line in text.split_inclusive('\n') {
        match part {
            BlockPart::Outside if opens(line) => {
                current = Replacement { path: before.take(), search: Vec::new(), replace: Vec::new() };
                part = BlockPart::Search;
            }
            BlockPart::Outside if is_conflict(line) => {
                return Err(EditProblem::Malformed("the block holds the markers of a merge conflict"));
            }
            BlockPart::Outside => before = path_line(line).or(before.filter(|_| line.trim().is_empty())),
            BlockPart::Search if divides(line) => part = BlockPart::Replace,
            BlockPart::Search if opens(line) || closes(line) => {
                return Err(EditProblem::Malformed("a search/replace block has no `=======` line"));
            }
            BlockPart::Search => current.search.push(line),
            BlockPart::Replace if closes(line) => {
                found.push(current.clone());
                part = BlockPart::Outside;
            }
            BlockPart::Replace if divides(line) => {
                let problem =
                    "a search/replace block has several `=======` lines, so it is unclear what is searched";
                return Err(EditProblem::Malformed(problem));
            }
            BlockPart::Replace if opens(line) => {
                return Err(EditProblem::Malformed("a search/replace block has no `>>>>>>> REPLACE` line"));
            }
            BlockPart::Replace => current.replace.push(line),
        }
    }
    match part {
        BlockPart::Outside => Ok(found),
        _ => Err(EditProblem::Malformed("a search/replace block is cut off")),
    }
}

impl Replacement<'_> {
    /// Applies the replacement to a file; `None` if the file does not exist. An empty search
    /// creates the file, or fills an empty one.
    ///
    /// # Errors
    /// The reason why it cannot be applied.
    pub(crate) fn apply(&self, text: Option<&str>) -> Result<String, EditProblem> {
        if self.search.iter().all(|line| line.trim().is_empty()) {
            return match text {
                None => Ok(self.replace.concat()),
                Some(text) if text.trim().is_empty() => Ok(self.replace.concat()),
                Some(_) => Err(EditProblem::Malformed(
                    "the search is empty, but the file is not; give the lines to replace",
                )),
            };
        }
        let text = text.ok_or(EditProblem::NoFile)?;
        let file = Lines::new(text);
        let start = file.find_one(&self.search, 0)?;
        let end = start + self.search.len();
        let mut result: String = file.lines[..start].concat();
        for line in &self.replace {
            result.push_str(without_ending(line));
            result.push_str(file.ending);
        }
        // A last line without a line ending stays without one.
        if end == file.lines.len()
            && !file.lines[end - 1].ends_with('\n')
            && result.len() > file.lines[..start].concat().len()
        {
            result.truncate(result.len() - file.ending.len());
        }
        result.push_str(&file.lines[end..].concat());
        Ok(result)
    }
}

/// Returns a line that could be the path of the block that follows.
fn path_line(line: &str) -> Option<&str> {
    let line = line.trim().trim_matches(['`', '*', '#', ':']).trim();
    let is_path = !line.is_empty() && !line.contains(char::is_whitespace) && line.contains(['.', '/']);
    is_path.then_some(line)
}

fn marker(line: &str, mark: char) -> Option<&str> {
    let line = line.trim_end();
    let word = line.trim_start_matches(mark);
    (5..=9).contains(&(line.len() - word.len())).then(|| word.trim())
}

fn opens(line: &str) -> bool {
    matches!(marker(line, '<'), Some("SEARCH" | "ORIGINAL")) || marker(line, '-') == Some("SEARCH")
}

fn divides(line: &str) -> bool {
    marker(line, '=') == Some("")
}

fn closes(line: &str) -> bool {
    let closes = |mark| matches!(marker(line, mark), Some("REPLACE" | "UPDATED"));
    closes('>') || closes('+')
}

fn is_conflict(line: &str) -> bool {
    line.starts_with("<<<<<<< ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(file: Option<&str>, block: &str) -> Result<String, String> {
        let mut text = file.map(str::to_owned);
        for replacement in parse(block).map_err(|problem| problem.to_string())? {
            text = Some(replacement.apply(text.as_deref()).map_err(|problem| problem.to_string())?);
        }
        Ok(text.unwrap_or_default())
    }

    fn block(search: &str, replace: &str) -> String {
        format!("<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n")
    }

    #[test]
    fn blocks_replace_the_lines_that_they_find() {
        let two = block("a\n", "A\n") + "\nand\n" + &block("c\n", "C\nD\n");
        let table = [
            ("a\nb\nc\n", block("b\n", "x\ny\n"), "a\nx\ny\nc\n"),
            ("a\nb\nc\n", block("b\n", ""), "a\nc\n"),
            ("a\nb\nc\n", two, "A\nb\nC\nD\n"),
            // White space at the ends of lines does not count, unless there is an exact match.
            ("if x:  \n\ty\t\n", block("if x:\n\ty\n", "z\n"), "z\n"),
            ("b \nb\n", block("b\n", "x\n"), "b \nx\n"),
            // The file's line endings stay.
            ("a\r\nb\r\nc\r\n", block("b\n", "x\ny\n"), "a\r\nx\r\ny\r\nc\r\n"),
            // A missing line ending at the end stays missing.
            ("a\nb", block("b\n", "x\n"), "a\nx"),
            ("a\nb", block("b\n", ""), "a\n"),
            ("", block("", "new\n"), "new\n"),
            ("ä\nö\n", block("ö\n", "ü\n"), "ä\nü\n"),
        ];
        for (file, block, expected) in table {
            assert_eq!(apply(Some(file), &block).as_deref(), Ok(expected), "{file:?} {block}");
        }
        assert_eq!(apply(None, &block("", "new\n")).as_deref(), Ok("new\n"));
        let marks = "------- SEARCH\na\n=======\nb\n+++++++ REPLACE\n";
        assert_eq!(apply(Some("a\n"), marks).as_deref(), Ok("b\n"));
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused_with_the_place() {
        let table = [
            (Some("a\nb\na\n"), block("a\n", "x\n"), "is in the file 2 times, at lines 1, 3"),
            (Some("a\n"), block("none\n", "x\n"), "is not in the file; its first line is \"none\""),
            // A part of a line is not a match.
            (Some("aaa\n"), block("a\n", "x\n"), "is not in the file"),
            // Applied already.
            (Some("x\n"), block("a\n", "x\n"), "is not in the file"),
            (None, block("a\n", "x\n"), "the file does not exist"),
            (Some("text\n"), block("", "x\n"), "the search is empty"),
            (Some("a\n"), "<<<<<<< SEARCH\na\n=======\nb\n".to_owned(), "cut off"),
            (Some("a\n"), "<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n".to_owned(), "no `=======`"),
            (Some("a\n"), block("a\n=======\nb\n", "c\n"), "several `=======`"),
            (Some("a\n"), "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> other\n".to_owned(), "merge conflict"),
        ];
        for (file, block, expected) in table {
            let problem = apply(file, &block).unwrap_err();
            assert!(problem.contains(expected), "{block}: {problem}");
        }
    }

    #[test]
    fn a_path_may_stand_above_each_block() {
        let text = format!("src/a.rs\n{}\n`b.py`:\n\n{}", block("a\n", "b\n"), block("c\n", "d\n"));
        let paths: Vec<_> = parse(&text).unwrap().into_iter().map(|found| found.path).collect();
        assert_eq!(paths, [Some("src/a.rs"), Some("b.py")]);
        assert_eq!(parse(&block("a\n", "b\n")).unwrap()[0].path, None);
    }
}
