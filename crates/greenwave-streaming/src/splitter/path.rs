//! Distinguishes file paths from words that only resemble one: media types, products, versions,
//! domains, attributes of objects.

/// The evidence, besides the word itself, that the word is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// It is in a place where paths are common. The word must have a common file extension.
    Word,
    /// It is marked as code or quoted. It may contain blanks.
    Quoted,
    /// It follows `File:` or a similar label. An extension or a directory is enough.
    Labelled,
    /// It is the value of `path=` or a similar attribute. Any possible path is accepted.
    Attribute,
}

/// Common file names without an extension, in this case only: `makefile` and `dockerfile` are
/// languages.
const BARE_NAMES: [&str; 34] = [
    "Appfile",
    "AUTHORS",
    "Berksfile",
    "Brewfile",
    "Caddyfile",
    "Capfile",
    "CHANGELOG",
    "CODEOWNERS",
    "CONTRIBUTING",
    "Containerfile",
    "COPYING",
    "Dangerfile",
    "Dockerfile",
    "Earthfile",
    "Fastfile",
    "Gemfile",
    "GNUmakefile",
    "Guardfile",
    "Jenkinsfile",
    "Justfile",
    "justfile",
    "LICENSE",
    "Makefile",
    "NOTICE",
    "Pipfile",
    "Podfile",
    "Procfile",
    "Puppetfile",
    "Rakefile",
    "README",
    "Snakefile",
    "Tiltfile",
    "Vagrantfile",
    "VERSION",
];

/// Hidden files without an extension that are not matched by [`HIDDEN_SUFFIXES`].
const HIDDEN_NAMES: [&str; 12] = [
    ".bash_profile",
    ".clang-format",
    ".clang-tidy",
    ".editorconfig",
    ".env",
    ".flake8",
    ".gitattributes",
    ".gitkeep",
    ".gitmodules",
    ".htaccess",
    ".profile",
    ".python-version",
];

const HIDDEN_SUFFIXES: [&str; 2] = ["rc", "ignore"];

/// Extensions of files that agents write, in lower case, sorted.
const EXTENSIONS: [&str; 151] = [
    "adoc",
    "ahk",
    "asm",
    "astro",
    "avsc",
    "awk",
    "bash",
    "bat",
    "bazel",
    "bib",
    "bicep",
    "bzl",
    "c",
    "cc",
    "cfg",
    "cjs",
    "clj",
    "cljs",
    "cmake",
    "cmd",
    "coffee",
    "conf",
    "cpp",
    "cr",
    "cs",
    "cshtml",
    "csproj",
    "css",
    "csv",
    "cts",
    "cu",
    "cxx",
    "dart",
    "dhall",
    "dockerfile",
    "edn",
    "ejs",
    "elm",
    "erb",
    "erl",
    "ex",
    "exs",
    "f90",
    "fish",
    "fsproj",
    "fsx",
    "gd",
    "gemspec",
    "geojson",
    "gleam",
    "glsl",
    "go",
    "gql",
    "gradle",
    "graphql",
    "groovy",
    "h",
    "haml",
    "hbs",
    "hcl",
    "heex",
    "hpp",
    "hrl",
    "hs",
    "htm",
    "html",
    "hxx",
    "ini",
    "ino",
    "ipynb",
    "java",
    "jinja",
    "jinja2",
    "jl",
    "js",
    "json",
    "json5",
    "jsonc",
    "jsonl",
    "jsx",
    "kt",
    "kts",
    "less",
    "lisp",
    "lua",
    "markdown",
    "md",
    "mdx",
    "mjs",
    "mk",
    "ml",
    "mli",
    "mm",
    "mts",
    "mustache",
    "nim",
    "nix",
    "njk",
    "php",
    "pl",
    "plist",
    "pm",
    "po",
    "prisma",
    "proto",
    "ps1",
    "psm1",
    "pug",
    "purs",
    "py",
    "pyi",
    "pyx",
    "r",
    "rake",
    "rb",
    "rkt",
    "rmd",
    "rs",
    "rst",
    "sass",
    "scala",
    "scm",
    "scss",
    "sh",
    "sln",
    "sol",
    "sql",
    "styl",
    "svelte",
    "svg",
    "swift",
    "tcl",
    "tex",
    "tf",
    "tfvars",
    "toml",
    "tpl",
    "ts",
    "tsv",
    "tsx",
    "twig",
    "txt",
    "vb",
    "vim",
    "vue",
    "xhtml",
    "xml",
    "xsd",
    "yaml",
    "yml",
    "zig",
];

/// Extensions that are accepted only after a directory: without one, `process.env` and
/// `console.log` are attributes.
const EXTENSIONS_IN_DIRECTORIES: [&str; 30] = [
    "bak",
    "cls",
    "config",
    "cue",
    "d",
    "diff",
    "dot",
    "el",
    "env",
    "example",
    "feature",
    "fs",
    "http",
    "j2",
    "lock",
    "log",
    "m",
    "map",
    "patch",
    "pem",
    "properties",
    "sample",
    "service",
    "snap",
    "spec",
    "template",
    "test",
    "v",
    "webmanifest",
    "zsh",
];

/// Common file names with such extensions.
const WHOLE_NAMES: [&str; 15] = [
    "app.config",
    "application.properties",
    "Cargo.lock",
    "composer.lock",
    "gradle.properties",
    "Gemfile.lock",
    "go.mod",
    "go.sum",
    "go.work",
    "log4j.properties",
    "manifest.webmanifest",
    "Package.resolved",
    "poetry.lock",
    "web.config",
    "yarn.lock",
];

/// Variables with methods named like extensions.
const VARIABLES: [&str; 10] = ["c", "ctx", "r", "req", "request", "res", "resp", "response", "self", "this"];

/// Products that end in `.js`, in lower case. `Node.js` is not a file.
const PRODUCTS: [&str; 86] = [
    "alpine",
    "angular",
    "anime",
    "aurelia",
    "babylon",
    "backbone",
    "bun",
    "cannon",
    "chart",
    "cytoscape",
    "d3",
    "dagre",
    "day",
    "deno",
    "discord",
    "echarts",
    "electron",
    "ember",
    "ethers",
    "express",
    "fabric",
    "fastify",
    "fullcalendar",
    "gatsby",
    "handlebars",
    "hapi",
    "hexo",
    "highcharts",
    "howler",
    "immutable",
    "inferno",
    "jasmine",
    "knex",
    "knockout",
    "koa",
    "konva",
    "leaflet",
    "lodash",
    "luxon",
    "mathjax",
    "matter",
    "mermaid",
    "meteor",
    "mithril",
    "moment",
    "mongoose",
    "mustache",
    "nest",
    "next",
    "node",
    "nuxt",
    "p5",
    "paper",
    "passport",
    "pdf",
    "phaser",
    "pixi",
    "plotly",
    "polymer",
    "popper",
    "preact",
    "prism",
    "puppeteer",
    "qwik",
    "ramda",
    "react",
    "remix",
    "require",
    "reveal",
    "riot",
    "sails",
    "sequelize",
    "showdown",
    "socket",
    "solid",
    "stimulus",
    "svelte",
    "swiper",
    "tensorflow",
    "three",
    "tone",
    "typed",
    "underscore",
    "video",
    "vue",
    "web3",
];

/// Products that are also written in lower case and are unlikely to be file names.
const PRODUCTS_IN_LOWER_CASE: [&str; 8] = ["d3", "deno", "next", "node", "nuxt", "p5", "three", "vue"];

/// The first parts of media types (RFC 6838).
const MEDIA_TYPES: [&str; 9] =
    ["application", "audio", "font", "image", "message", "model", "multipart", "text", "video"];

/// Directories whose files often have no extension.
const PROGRAM_DIRECTORIES: [&str; 8] =
    [".git-hooks", ".husky", "bin", "githooks", "hooks", "libexec", "sbin", "scripts"];

/// Directories of sources. Their names are not part of phrases such as `client/server`.
const SOURCE_DIRECTORIES: [&str; 8] =
    ["cmd", "crates", "internal", "lib", "packages", "pkg", "scripts", "src"];

/// Directories below the root. Other paths from the root need an extension: `/users` is an endpoint
/// of a server.
const SYSTEM_DIRECTORIES: [&str; 12] =
    ["dev", "etc", "home", "mnt", "opt", "proc", "root", "srv", "sys", "tmp", "usr", "var"];

/// Top-level domains that are not file extensions.
const TOP_LEVEL_DOMAINS: [&str; 14] =
    ["ai", "app", "co", "com", "dev", "edu", "gov", "info", "io", "land", "net", "org", "uk", "us"];

/// Returns whether the text is the path of a file.
pub(super) fn is_path(text: &str, trust: Trust) -> bool {
    let is_foreign = |c: char| c.is_control() || "`*<>|\"';,=?!，。、：；！？".contains(c);
    let is_blank = |c: char| c.is_whitespace();
    let has_blanks = text.contains(is_blank);
    if text.is_empty() || text.len() > 255 || text.ends_with(['/', '\\']) || text.contains(is_foreign) {
        return false;
    }
    if has_blanks && (trust < Trust::Quoted || text.trim() != text) {
        return false;
    }
    // `{name}.py` stands for a name.
    let is_placeholder = text.contains(['{', '}']) && trust < Trust::Attribute;
    if is_variable(text) || is_placeholder || has_blanks && is_phrase(text) {
        return false;
    }
    // Only a Windows drive may contain a colon.
    let drive = text.get(1..3).is_some_and(|colon| [":\\", ":/"].contains(&colon));
    let after_drive = if drive { &text[2..] } else { text };
    if after_drive.contains(':') || text.contains("//") || !has_balanced_brackets(text) {
        return false;
    }
    let mut parts = text.split(['/', '\\']);
    let name = parts.next_back().unwrap_or(text);
    let directory = &text[..text.len() - name.len()];
    let first = parts.next().unwrap_or_default();
    if directory.is_empty() {
        return is_file_name(name, trust) && !has_blanks_before_name(name);
    }
    if is_domain(first) && !first.starts_with('.') {
        return false;
    }
    let is_media =
        MEDIA_TYPES.contains(&first) && directory.len() == first.len() + 1 && trust < Trust::Attribute;
    let is_rooted = directory.starts_with(['.', '~']) || is_in_system(text) || drive;
    is_named_in_directory(name, is_media)
        || !is_media
            && (is_rooted || trust >= Trust::Labelled || is_program_directory(directory))
            && is_plain_name(name)
}

/// Returns whether a path starts in a directory that an environment variable names:
/// `$HOME/.bashrc`, `${DIR}/a.py`, `%APPDATA%/x.json`. The names of some web frameworks' routes
/// also start with `$`, but are lower case: `$id/page.tsx`.
fn is_variable(text: &str) -> bool {
    let first = text.split(['/', '\\']).next().unwrap_or_default();
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
    };
    let inner =
        first.strip_prefix('$').or_else(|| first.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')));
    first.len() < text.len() && (first.starts_with("${") || inner.is_some_and(is_name))
}

/// Commands that often precede the path of a file.
const COMMANDS: [&str; 86] = [
    "awk",
    "bash",
    "black",
    "bun",
    "bunx",
    "cargo",
    "cat",
    "cd",
    "chmod",
    "clang",
    "clang++",
    "cmake",
    "cp",
    "curl",
    "deno",
    "diff",
    "docker",
    "dotnet",
    "echo",
    "eslint",
    "flake8",
    "g++",
    "gcc",
    "git",
    "go",
    "grep",
    "gunicorn",
    "head",
    "isort",
    "java",
    "javac",
    "jest",
    "kotlinc",
    "kubectl",
    "less",
    "ln",
    "ls",
    "make",
    "mkdir",
    "mocha",
    "mv",
    "mypy",
    "nano",
    "node",
    "nodemon",
    "npm",
    "npx",
    "open",
    "perl",
    "php",
    "pip",
    "pip3",
    "pnpm",
    "poetry",
    "prettier",
    "pylint",
    "pyright",
    "pytest",
    "python",
    "python3",
    "rm",
    "ruby",
    "ruff",
    "rustc",
    "rustfmt",
    "sed",
    "sh",
    "source",
    "streamlit",
    "sudo",
    "swift",
    "tail",
    "terraform",
    "time",
    "touch",
    "ts-node",
    "tsc",
    "tsx",
    "uv",
    "uvicorn",
    "vi",
    "vim",
    "vitest",
    "wget",
    "yarn",
    "zsh",
];

/// Returns whether words with blanks are no name: a request such as `GET /users.json`, a command
/// such as `python a.py`, or words around a name such as `e.g. a.py`.
fn is_phrase(text: &str) -> bool {
    const ABBREVIATIONS: [&str; 6] = ["cf.", "e.g.", "etc.", "i.e.", "see", "vs."];
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_request = first.len() > 2
        && first.bytes().all(|c| c.is_ascii_uppercase())
        && words.next().is_some_and(|word| word.starts_with('/'));
    // `ruff check src/app.py`, `grep -n main a.rs`.
    let is_command = COMMANDS.contains(&first) || text.split_whitespace().any(|word| word.starts_with('-'));
    is_request || is_command || text.split_whitespace().any(|word| ABBREVIATIONS.contains(&word))
}

/// Returns whether this is a file name in any directory.
fn is_file_name(name: &str, trust: Trust) -> bool {
    if is_well_known(name) {
        return true;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return trust == Trust::Attribute && is_plain_name(name);
    };
    let extension_lower = extension.to_ascii_lowercase();
    if stem.is_empty() || is_version(stem) && !is_common_extension(&extension_lower) {
        return false;
    }
    // `a.b.c` is not a C source file.
    let is_call =
        VARIABLES.contains(&stem) && ["csv", "html", "json", "xml"].contains(&extension_lower.as_str());
    let is_attribute = (extension.len() == 1 && stem.contains('.') || is_call) && trust < Trust::Labelled;
    if is_common_extension(&extension_lower) && !is_attribute {
        return trust >= Trust::Labelled || !is_product(name, stem, &extension_lower);
    }
    // An attribute never contains a hyphen. A CSS selector may, and `fits` checks the language.
    if extension.contains('-') && trust == Trust::Quoted {
        return is_plain_extension(extension) && is_plain_name(name) && !stem.contains('.');
    }
    let is_extension =
        is_plain_extension(extension) && !TOP_LEVEL_DOMAINS.contains(&extension_lower.as_str());
    trust >= Trust::Labelled && is_extension && is_plain_name(name)
}

/// Returns whether this is a file name after a directory, where any extension is accepted.
fn is_named_in_directory(name: &str, is_media: bool) -> bool {
    if is_well_known(name) {
        return true;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let lower = extension.to_ascii_lowercase();
    if stem.is_empty() {
        return false;
    }
    is_common_extension(&lower)
        || EXTENSIONS_IN_DIRECTORIES.contains(&lower.as_str())
        || !is_media && is_plain_extension(extension) && !is_version(stem)
}

fn is_well_known(name: &str) -> bool {
    let is_bare = |name: &str| BARE_NAMES.contains(&name);
    // `Dockerfile.dev`, `.env.local`, `README.old`.
    let first = name.split_once('.').map_or(name, |(first, _)| first);
    let is_variant = is_bare(first)
        && name[first.len()..].bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c));
    is_variant || is_hidden(name) || WHOLE_NAMES.contains(&name)
}

fn is_hidden(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('.') else { return false };
    let is_word = rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    let is_listed = HIDDEN_NAMES.contains(&name) || name.starts_with(".env.");
    let ends = rest.len() > 3 && HIDDEN_SUFFIXES.iter().any(|end| rest.ends_with(end));
    let has_extension = rest
        .rsplit_once('.')
        .is_some_and(|(stem, extension)| !stem.is_empty() && is_common_extension(extension));
    is_word && rest.starts_with(|c: char| c.is_ascii_lowercase()) && (is_listed || ends || has_extension)
}

fn is_common_extension(extension: &str) -> bool {
    EXTENSIONS.binary_search(&extension).is_ok()
}

/// Returns whether the name consists of letters, digits and some punctuation, with at least one
/// letter.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
        && name.chars().all(|c| c.is_alphanumeric() || "._-+@".contains(c))
        && name.chars().any(char::is_alphabetic)
}

fn is_plain_extension(extension: &str) -> bool {
    extension.len() <= 16
        && extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c))
}

/// `1.2`, `v3`.
fn is_version(stem: &str) -> bool {
    let digits = stem.strip_prefix(['v', 'V']).unwrap_or(stem);
    !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit() || c == b'.')
}

fn is_product(name: &str, stem: &str, extension: &str) -> bool {
    let lower = stem.to_ascii_lowercase();
    let is_named = |list: &[&str]| list.contains(&lower.as_str());
    let is_capital = stem.starts_with(|c: char| c.is_ascii_uppercase());
    let is_script =
        extension == "js" && (is_capital && is_named(&PRODUCTS) || is_named(&PRODUCTS_IN_LOWER_CASE));
    // Packages of Julia are written `DataFrames.jl`, namespaces of .NET `System.Text.Json`.
    let is_package = extension == "jl" && is_capital && !stem.contains(['_', '-']);
    let is_namespace = [".Json", ".Xml", ".Html"].iter().any(|end| name.ends_with(end));
    let others = ["asp.net", "docs.rs", "crates.rs", "discord.py", "web3.py"];
    is_script || is_package || is_namespace || others.contains(&name.to_ascii_lowercase().as_str())
}

fn is_program_directory(directory: &str) -> bool {
    let last = directory.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
    last.is_some_and(|last| PROGRAM_DIRECTORIES.contains(&last))
}

/// Returns whether a path begins with a directory of sources.
pub(super) fn is_in_sources(path: &str) -> bool {
    path.split_once('/').is_some_and(|(first, _)| SOURCE_DIRECTORIES.contains(&first))
}

/// Returns whether a path leads into a directory of the system.
fn is_in_system(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    first.is_some_and(|(first, _)| SYSTEM_DIRECTORIES.contains(&first))
}

fn is_domain(part: &str) -> bool {
    part.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && TOP_LEVEL_DOMAINS.contains(&end))
}

/// `Read the docs.md` is a file if it is quoted; `and then main.rs` is not.
fn has_blanks_before_name(name: &str) -> bool {
    name.split_whitespace().count() > 4
}

fn has_balanced_brackets(text: &str) -> bool {
    let mut open = Vec::new();
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => match (open.pop(), c) {
                (Some('('), ')') | (Some('['), ']') | (Some('{'), '}') => {}
                _ => return false,
            },
            _ => {}
        }
    }
    // Brackets must not be empty: `route()` is a call.
    open.is_empty() && !["()", "[]", "{}"].iter().any(|pair| text.contains(pair))
}

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

const _: () = assert!(is_sorted(&EXTENSIONS), "extensions are found by binary search");

const fn is_sorted(words: &[&str]) -> bool {
    let mut at = 1;
    while at < words.len() {
        if !is_before(words[at - 1].as_bytes(), words[at].as_bytes()) {
            return false;
        }
        at += 1;
    }
    true
}

const fn is_before(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    a.len() < b.len()
}
