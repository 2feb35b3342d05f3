//! Decides by the language of a block whether it may be a certain file.

/// Languages of commands or of their output.
const COMMAND_LANGUAGES: [&str; 15] = [
    "bash",
    "sh",
    "shell",
    "zsh",
    "fish",
    "console",
    "terminal",
    "shell-session",
    "shellsession",
    "sh-session",
    "cmd",
    "bat",
    "batch",
    "powershell",
    "ps1",
];

/// Families of languages with their file extensions. A block in one of these languages is not a
/// file of another family.
const LANGUAGE_FAMILIES: [(&[&str], &[&str]); 14] = [
    (&["python", "py", "python3"], &["py", "pyi", "pyx", "ipynb"]),
    (&["rust", "rs"], &["rs"]),
    (&["go", "golang"], &["go", "mod", "sum"]),
    (
        &["java", "kotlin", "kt", "scala", "groovy", "gradle"],
        &["java", "kt", "kts", "scala", "groovy", "gradle"],
    ),
    (&["ruby", "rb"], &["rb", "rake", "gemspec", "erb"]),
    (
        &["c", "cpp", "c++", "objc", "objective-c", "cuda"],
        &["c", "cc", "cpp", "cxx", "cu", "h", "hpp", "hxx", "m", "mm", "ino"],
    ),
    (&["csharp", "cs", "c#"], &["cs", "cshtml"]),
    (&["swift"], &["swift"]),
    (&["sql", "postgresql", "mysql"], &["sql"]),
    (
        &["json", "jsonc", "json5"],
        &["json", "jsonc", "json5", "geojson", "ipynb", "webmanifest", "avsc", "lock"],
    ),
    (&["yaml", "yml"], &["yaml", "yml"]),
    (&["markdown", "md", "mdx"], &["md", "mdx", "markdown", "rmd", "txt"]),
    (
        &["javascript", "js", "jsx", "typescript", "ts", "tsx", "vue", "svelte"],
        &["js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts", "vue", "svelte", "astro", "json", "html"],
    ),
    (&["css", "scss", "sass", "less"], &["css", "scss", "sass", "less", "styl"]),
];

/// Returns whether a block in `language` may be the file `path`. The line above a block often names
/// the file that commands or data in the block are about.
pub(super) fn fits(language: &str, path: &str) -> bool {
    let language = language.to_ascii_lowercase();
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let extension =
        name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    let is_selector = extension.contains('-') && SELECTOR_LANGUAGES.contains(&language.as_str());
    if is_output(&language) || is_selector {
        return false;
    }
    let has_family =
        || LANGUAGE_FAMILIES.iter().any(|(_, extensions)| extensions.contains(&extension.as_str()));
    if COMMAND_LANGUAGES.contains(&language.as_str()) {
        let others = ["toml", "html", "xml", "txt", "dart", "php", "lua", "ex", "exs", "hs", "tf"];
        return !has_family() && !others.contains(&extension.as_str());
    }
    match LANGUAGE_FAMILIES.iter().find(|(names, _)| names.contains(&language.as_str())) {
        Some((_, extensions)) => extensions.contains(&extension.as_str()) || !has_family(),
        None => true,
    }
}

/// Languages in which `button.is-large` is a selector.
const SELECTOR_LANGUAGES: [&str; 10] =
    ["css", "html", "javascript", "js", "jsx", "less", "sass", "scss", "svelte", "vue"];

/// Languages of output, which is not saved to a file.
const OUTPUT_LANGUAGES: [&str; 8] =
    ["console", "output", "shell-session", "shellsession", "terminal", "traceback", "stdout", "log"];

/// Returns whether blocks in the language hold output.
pub(super) fn is_output(language: &str) -> bool {
    OUTPUT_LANGUAGES.contains(&language)
}

/// Returns whether the language or file is Markdown, in which fences are likely part of the
/// content.
pub(super) fn is_markdown(word: &str) -> bool {
    let extension = word.rsplit('.').next().unwrap_or(word);
    ["md", "mdx", "markdown", "rmd"].iter().any(|listed| extension.eq_ignore_ascii_case(listed))
}
