//! Writes discovered tests as the text of a `greenwave.toml`.

use std::path::Path;

use toml::Value;

use super::discovery::Discovery;
use crate::Test;

const HEAD: &str = "\
# The tests of this project. Without this file they are discovered on each run; with it, only these are run.
#
# Each [[test]] can have:
#   name           name in output
#   command        program and arguments, run without a shell
#   directory      working directory, relative to this file; default: the directory of this file
#   inputs         patterns of the files it reads, in the syntax of .gitignore: [\"src/**\", \"!src/generated.rs\"]
#   folders        directories whose files are inputs unless ignored; without inputs and folders, all files are
#   outputs        patterns of the files it writes in the project: never inputs
#   servers        servers that it uses and does not start, such as localhost:5432
#   env            variables that it sees beside PATH and the like; all others are withheld
#   set            variables with fixed values: { TZ = \"UTC\" }
#   needs          resources that it holds while it runs: { database = 1 }
#   parallel_safe  false if no other test may run at the same time; default: true
#   timeout        time limit, after which it is killed; default: \"10m\"
#   retries        further attempts after a failure; a test that passes only then is flaky and not cached
";

impl Discovery {
    /// Returns the text of a `greenwave.toml` with these tests, and comments that explain each key.
    pub fn init_text(&self) -> String {
        let mut text = String::from(HEAD);
        for note in &self.notes {
            // A name may contain a line break, which would end the comment.
            let note: String =
                note.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&format!("# Note: {note}.\n"));
        }
        for test in &self.tests {
            text.push('\n');
            text.push_str(&table(test));
        }
        text
    }
}

fn table(test: &Test) -> String {
    let texts = |texts: &[String]| Value::from(texts.to_vec());
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let directory_text = |path: &Path| {
        if path.as_os_str().is_empty() { ".".to_owned() } else { path.to_string_lossy().into_owned() }
    };
    let directories: Vec<_> = test.directories.iter().map(|directory| directory_text(directory)).collect();
    let mut keys = vec![("name", Value::from(test.name.as_str())), ("command", texts(&test.command))];
    if !test.directory.as_os_str().is_empty() {
        keys.push(("directory", Value::from(path(&test.directory))));
    }
    for (key, list) in [
        ("inputs", &test.inputs),
        ("folders", &directories),
        ("outputs", &test.outputs),
        ("servers", &test.servers),
        ("env", &test.env),
    ] {
        if !list.is_empty() {
            keys.push((key, texts(list)));
        }
    }
    let set: toml::Table =
        test.set.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    if !set.is_empty() {
        keys.push(("set", Value::Table(set)));
    }
    let needs: toml::Table =
        test.needs.iter().map(|(name, amount)| (name.clone(), Value::from(i64::from(*amount)))).collect();
    if !needs.is_empty() {
        keys.push(("needs", Value::Table(needs)));
    }
    if !test.parallel_safe {
        keys.push(("parallel_safe", Value::from(false)));
    }
    if test.time_max != Test::TIME_MAX {
        keys.push(("timeout", Value::from(humantime::format_duration(test.time_max).to_string())));
    }
    if test.retries > 0 {
        keys.push(("retries", Value::from(i64::from(test.retries))));
    }
    let lines = keys.into_iter().map(|(key, value)| format!("{key} = {value}\n"));
    std::iter::once("[[test]]\n".to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_project_directory_is_written_as_a_dot() {
        let mut test = Test::new("t", ["true"]);
        test.directories = vec![PathBuf::new(), PathBuf::from("a")];
        let text = table(&test);
        assert!(text.contains(r#" = [".", "a"]"#), "{text}");
    }
}
