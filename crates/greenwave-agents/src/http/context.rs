//! Composes the part of a prompt with files of the project.

use std::fmt::Write;
use std::io;
use std::path::Path;

use greenwave_dir::Dir;

use crate::{Error, Request};

/// Size of a token, in bytes. An estimate: code has three to four bytes for each.
const TOKEN_BYTES: usize = 4;
/// Maximum size of a file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of files that are named because they do not fit.
const NAMED_MAX: usize = 100;

/// A file that a request names.
struct ContextFile<'r> {
    path: &'r str,
    /// `None` if the file is too large or not text.
    text: Option<String>,
}

/// Reads the files that a request names, up to a number of tokens. Files that are not text are left
/// out.
pub(super) async fn read(request: &Request, tokens_max: u32) -> Result<String, Error> {
    if request.context.is_empty() {
        return Ok(String::new());
    }
    let request = request.clone();
    let directory = request.directory.clone();
    let read = tokio::task::spawn_blocking(move || {
        let bytes_max = (tokens_max as usize).saturating_mul(TOKEN_BYTES);
        compose(&Dir::open(&request.directory)?, &request, bytes_max)
    });
    let read = read.await.map_err(io::Error::other).and_then(|read| read);
    read.map_err(|source| Error::ReadContext { directory, source })
}

fn compose(directory: &Dir, request: &Request, bytes_max: usize) -> io::Result<String> {
    let mut paths: Vec<&String> = request.context.iter().collect();
    // Files that the prompt names are read first, so that they have the best chance to fit.
    paths.sort_by_key(|path| !names(&request.prompt, path));
    let mut left = bytes_max;
    let mut files = Vec::new();
    for path in paths {
        let room = FILE_BYTES_MAX.min(left as u64);
        let text = match directory.read(Path::new(path), room) {
            Ok(content) => match String::from_utf8(content) {
                Ok(text) if !text.contains('\0') => Some(text),
                _ => continue,
            },
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            // A file that has vanished, or a link.
            Err(_) => continue,
        };
        let text = text.filter(|text| block_bytes(path, text) <= left);
        left -= text.as_ref().map_or(0, |text| block_bytes(path, text));
        files.push(ContextFile { path, text });
    }
    // The order does not depend on the prompt, so that requests begin alike.
    files.sort_by_key(|file| file.path);
    Ok(written(&files))
}

/// Returns whether a text names a path, and not only a longer word or path that contains it.
fn names(text: &str, path: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_-/".contains(c);
    text.match_indices(path).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + path.len()..]);
        // A full stop ends a sentence, or begins an extension.
        let after = after.strip_prefix('.').unwrap_or(after);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Returns the size of a file in the prompt, in bytes.
fn block_bytes(path: &str, text: &str) -> usize {
    path.len() + text.len() + 2 * fence(text).len() + 8
}

/// Returns a fence that is longer than all in a text.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat((longest + 1).max(3))
}

fn written(files: &[ContextFile<'_>]) -> String {
    let mut all = String::new();
    for file in files {
        let Some(text) = &file.text else { continue };
        if all.is_empty() {
            all.push_str("Files of the project:\n");
        }
        let (fence, path) = (fence(text), file.path);
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        let _ = write!(all, "\n{fence}text {path}\n{text}{end}{fence}\n");
    }
    let left_out: Vec<&str> = files.iter().filter(|file| file.text.is_none()).map(|file| file.path).collect();
    if !left_out.is_empty() {
        let names = left_out[..left_out.len().min(NAMED_MAX)].join(", ");
        let more = left_out.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(all, "\nThese files exist as well and are not shown: {names}{more}");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compose_in(files: &[(&str, &[u8])], prompt: &str, bytes_max: usize) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        let named = files.iter().map(|(path, _)| (*path).to_owned());
        let named = named.chain(["link".to_owned(), "gone".to_owned()]);
        let request = Request::new("f", 1, prompt, directory.path(), "/tmp").with_context(named.collect());
        compose(&Dir::open(directory.path()).unwrap(), &request, bytes_max).unwrap()
    }

    #[test]
    fn files_are_fenced_in_the_order_of_their_paths() {
        let files: [(&str, &[u8]); 4] =
            [("src/b.rs", b"```\nfn b() {}"), ("a.md", b"a\n"), ("x.png", b"\x89PNG\0"), ("y", b"\xff")];
        let expected =
            "Files of the project:\n\n```text a.md\na\n```\n\n````text src/b.rs\n```\nfn b() {}\n````\n";
        assert_eq!(compose_in(&files, "", 1000), expected);
    }

    #[test]
    fn paths_are_found_as_whole_words() {
        for text in ["Change src/a.rs.", "`src/a.rs`", "src/a.rs:12:5", "in src/a.rs"] {
            assert!(names(text, "src/a.rs"), "{text}");
        }
        for text in ["", "lib/src/a.rs", "src/a.rss", "src/a.rs.orig", "src/a.rs/b"] {
            assert!(!names(text, "src/a.rs"), "{text}");
        }
    }

    #[test]
    fn files_that_the_prompt_names_come_before_others_and_the_rest_is_named() {
        let big = [b'x'; 60];
        let files: [(&str, &[u8]); 3] = [("a", &big), ("b", &big), ("c", b"c\n")];
        let text = compose_in(&files, "Change b.", 100);
        assert!(text.contains("```text b\n") && text.contains("```text c\n"), "{text}");
        assert!(!text.contains("```text a\n"), "{text}");
        assert!(text.ends_with("\nThese files exist as well and are not shown: a\n"), "{text}");
        let none = compose_in(&files, "", 0);
        assert_eq!(none, "\nThese files exist as well and are not shown: a, b, c\n");
    }
}
