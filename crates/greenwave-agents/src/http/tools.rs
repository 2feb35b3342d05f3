//! Tools with which a model works on the files of a directory.

mod files;
mod search;

use std::io;
use std::path::{Component, Path};

use greenwave_dir::{Dir, folded_name};
use serde_json::{Map, Value, json};

use crate::Withheld;

/// Maximum size of a result, in bytes.
const RESULT_BYTES_MAX: usize = 32 * 1024;
/// Directories that no tool enters: the state of version control and of greenwave.
const HIDDEN: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// A tool with its parameters. All are strings, except those in `numbers`.
struct Tool {
    name: &'static str,
    description: &'static str,
    required: &'static [(&'static str, &'static str)],
    optional: &'static [(&'static str, &'static str)],
    numbers: &'static [&'static str],
}

const PATH: (&str, &str) = ("path", "Path relative to the project's directory.");

const TOOLS: [Tool; 6] = [
    Tool {
        name: "list",
        description: "Lists the entries of a directory. Directories end with a slash.",
        required: &[],
        optional: &[("path", "Path of the directory. Default: the project's directory.")],
        numbers: &[],
    },
    Tool {
        name: "search",
        description: "Finds the lines of all files that contain a text, with regard to case.",
        required: &[("text", "The text, on one line.")],
        optional: &[("path", "File or directory to search. Default: the whole project.")],
        numbers: &[],
    },
    Tool {
        name: "read",
        description: "Returns the lines of a file. Long files are cut: read their parts by line numbers.",
        required: &[PATH],
        optional: &[("from", "Number of the first line, from 1."), ("lines", "Number of lines.")],
        numbers: &["from", "lines"],
    },
    Tool {
        name: "edit",
        description: "Replaces a text in a file. The text must be in the file exactly once.",
        required: &[
            PATH,
            ("search", "The text to replace, with all white space."),
            ("replace", "The new text."),
        ],
        optional: &[],
        numbers: &[],
    },
    Tool {
        name: "write",
        description: "Creates or replaces a file, and creates its directories.",
        required: &[PATH, ("content", "The whole content of the file.")],
        optional: &[],
        numbers: &[],
    },
    Tool { name: "delete", description: "Deletes a file.", required: &[PATH], optional: &[], numbers: &[] },
];

/// The tool that runs the tests. The caller performs it.
pub(super) const TEST: &str = "test";

/// Returns the name, the description and the JSON Schema of the parameters of each tool.
pub(super) fn definitions(has_tests: bool) -> impl Iterator<Item = (&'static str, &'static str, Value)> {
    let test = Tool {
        name: TEST,
        description: "Runs the feature's tests on the files as they are now, and returns the first failure.",
        required: &[],
        optional: &[],
        numbers: &[],
    };
    TOOLS.into_iter().chain(has_tests.then_some(test)).map(|tool| {
        let parameters = tool.required.iter().chain(tool.optional).map(|(name, description)| {
            let kind = if tool.numbers.contains(name) { "integer" } else { "string" };
            ((*name).to_owned(), json!({ "type": kind, "description": description }))
        });
        let required: Vec<&str> = tool.required.iter().map(|(name, _)| *name).collect();
        let schema = json!({
            "type": "object",
            "properties": Value::Object(parameters.collect::<Map<_, _>>()),
            "required": required,
            "additionalProperties": false,
        });
        (tool.name, tool.description, schema)
    })
}

/// Returns whether a tool changes files.
pub(super) fn changes_files(name: &str) -> bool {
    matches!(name, "edit" | "write" | "delete")
}

/// The result of a tool, for the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ToolResult {
    pub(super) text: String,
    pub(super) is_error: bool,
    /// The file, directory or text that the call is about.
    pub(super) target: String,
    /// The file that was changed.
    pub(super) touched: Option<String>,
}

/// Runs a tool in a directory. All paths are resolved below its handle, and no link is followed out
/// of it. A failure is a result, which the model can act on.
pub(super) fn run(directory: &Dir, withheld: Withheld, name: &str, arguments: &str) -> ToolResult {
    let parsed: Value =
        serde_json::from_str(if arguments.trim().is_empty() { "{}" } else { arguments }).unwrap_or_default();
    let target = ["path", "text"].iter().find_map(|key| parsed.get(key)?.as_str());
    let target = target.unwrap_or_default().to_owned();
    let done = match &parsed {
        Value::Object(arguments) => call(directory, withheld, name, &Arguments(arguments)),
        _ => Err("the arguments are not a JSON object".to_owned()),
    };
    match done {
        Ok(Done { text, touched }) => ToolResult { text: cut(text), is_error: false, target, touched },
        Err(text) => {
            ToolResult { text: cut(format!("error: {text}")), is_error: true, target, touched: None }
        }
    }
}

/// The work of a tool that succeeded.
struct Done {
    text: String,
    touched: Option<String>,
}

impl Done {
    fn looked(text: String) -> Self {
        Self { text, touched: None }
    }

    fn changed(text: &str, path: &str) -> Self {
        Self { text: text.to_owned(), touched: Some(path.to_owned()) }
    }
}

/// Returns the result of the tests.
pub(super) fn tested(text: Option<String>) -> ToolResult {
    let is_error = text.is_none();
    let text = text.unwrap_or_else(|| "error: the tests cannot run".to_owned());
    ToolResult { text: cut(text), is_error, target: String::new(), touched: None }
}

fn call(directory: &Dir, withheld: Withheld, name: &str, arguments: &Arguments<'_>) -> Result<Done, String> {
    if matches!(name, "read" | "edit") && withheld.contains(arguments.path()?) {
        return Err(format!("cannot {name} {:?}: it probably holds secrets", arguments.path()?));
    }
    match name {
        "list" => files::list(directory, arguments.path_or_root()?).map(Done::looked),
        "search" => {
            let (path, text) = (arguments.path_or_root()?, arguments.text("text")?);
            search::search(directory, withheld, path, text).map(Done::looked)
        }
        "read" => {
            let (from, lines) = (arguments.number("from")?, arguments.number("lines")?);
            files::read(directory, arguments.path()?, from, lines).map(Done::looked)
        }
        "edit" => {
            let path = arguments.path()?;
            files::edit(directory, path, arguments.text("search")?, arguments.text("replace")?)?;
            Ok(Done::changed("edited", path))
        }
        "write" => {
            let path = arguments.path()?;
            files::write(directory, path, arguments.text("content")?)?;
            Ok(Done::changed("written", path))
        }
        "delete" => {
            let path = arguments.path()?;
            files::delete(directory, path)?;
            Ok(Done::changed("deleted", path))
        }
        _ => {
            let names = TOOLS.map(|tool| tool.name).join(", ");
            Err(format!("unknown tool `{name}`: expected one of {names}"))
        }
    }
}

/// The arguments of a call.
struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    fn text(&self, name: &str) -> Result<&'a str, String> {
        let value = self.0.get(name).and_then(Value::as_str);
        value.ok_or_else(|| format!("missing argument `{name}`: expected a string"))
    }

    fn number(&self, name: &str) -> Result<Option<usize>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
                number.map(Some).ok_or_else(|| format!("invalid value for `{name}`: expected a whole number"))
            }
        }
    }

    /// Returns the path of a file.
    fn path(&self) -> Result<&'a str, String> {
        match checked(self.text("path")?)? {
            "" => Err("invalid value for `path`: expected the path of a file".to_owned()),
            path => Ok(path),
        }
    }

    /// Returns a path, which is empty for the directory itself.
    fn path_or_root(&self) -> Result<&'a str, String> {
        if self.0.get("path").is_none_or(Value::is_null) { Ok("") } else { checked(self.text("path")?) }
    }
}

/// Checks that a path stays inside the directory by name. Returns it without a `./` before it and a
/// slash after it.
fn checked(path: &str) -> Result<&str, String> {
    let trimmed = path.trim_end_matches('/');
    let mut plain = if trimmed == "." { "" } else { trimmed };
    while let Some(rest) = plain.strip_prefix("./") {
        plain = rest;
    }
    let is_inside = !path.starts_with('/')
        && !plain.contains('\0')
        && Path::new(plain).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside {
        return Err(format!("invalid path {path:?}: expected a path relative to the project, without `..`"));
    }
    if plain.split('/').any(|part| HIDDEN.contains(&folded_name(part).as_str())) {
        return Err(format!("invalid path {path:?}: the directory is not part of the project's files"));
    }
    Ok(plain)
}

/// Describes an error of the file system.
fn describe(operation: &str, path: &str, error: &io::Error) -> String {
    format!("cannot {operation} {path:?}: {error}")
}

/// Cuts a long text at a line.
fn cut(mut text: String) -> String {
    if text.len() > RESULT_BYTES_MAX {
        let end = (0..=RESULT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let end = text[..end].rfind('\n').unwrap_or(end);
        text.truncate(end);
        text.push_str("\n[cut off]");
    }
    text
}

#[cfg(test)]
mod tests;
