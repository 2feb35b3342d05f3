//! Lists the words around paths: labels, verbs, and words that announce a part of a file.

/// Labels that are followed by a path.
pub(super) const LABELS: [&str; 33] = [
    "file",
    "filename",
    "file name",
    "file path",
    "file_path",
    "filepath",
    "file_name",
    "path",
    "relative path",
    "full path",
    "new file",
    "source file",
    "updated file",
    "target file",
    "target path",
    "location",
    "file location",
    "@file",
    "@filename",
    "modified file",
    "code",
    // Spanish, French, German, Portuguese, Russian, Chinese, Japanese and Korean.
    "archivo",
    "fichier",
    "datei",
    "arquivo",
    "файл",
    "文件",
    "文件名",
    "文件路径",
    "檔案",
    "ファイル",
    "ファイル名",
    "파일",
];

/// Verbs, adjectives and nouns before a path that announce the whole file.
pub(super) const VERBS: [&str; 15] = [
    "create", "creating", "created", "write", "writing", "new", "add", "adding", "the", "full", "complete",
    "final", "contents", "content", "code",
];

/// Words between such a verb and the path.
pub(super) const FILLERS: [&str; 18] = [
    "a", "an", "the", "new", "file", "called", "named", "full", "complete", "final", "at", "code", "for",
    "of", "content", "contents", "source", "version",
];

/// Words that continue a series of files, before a verb.
pub(super) const CONTINUATIONS: [&str; 9] =
    ["first", "second", "third", "next", "now", "then", "finally", "lastly", "also"];

/// Ends of a line that announces a whole file: ``Create `src/app.py` with the following content:``.
pub(super) const ANNOUNCEMENTS: [&str; 10] = [
    "file",
    "with",
    "with the following",
    "with the following code",
    "with the following content",
    "with the following contents",
    "with this code",
    "with this content",
    "with this contents",
    "containing",
];

/// Words of a remark after a colon that announce a fault rather than the file.
pub(super) const FAULTS: [&str; 8] =
    ["bug", "error", "errors", "fix", "issue", "problem", "traceback", "warning"];

/// Words of a remark that announce only a part of a file.
pub(super) const PARTIAL: [&str; 22] = [
    "append",
    "before",
    "changed",
    "changes",
    "diff",
    "edits",
    "excerpt",
    "existing",
    "fragment",
    "insert",
    "old",
    "only",
    "output",
    "part",
    "partial",
    "relevant",
    "replace",
    "section",
    "snippet",
    "truncated",
    "unchanged",
    "usage",
];

/// Further words that announce a part, in a line of text between a heading and its block.
pub(super) const PARTIAL_IN_LINES: [&str; 24] = [
    "add",
    "adding",
    "addition",
    "additions",
    "after",
    "below",
    "change",
    "delete",
    "edit",
    "example",
    "import",
    "inside",
    "install",
    "modify",
    "prepend",
    "previous",
    "prints",
    "remove",
    "returns",
    "run",
    "running",
    "update",
    "updates",
    "within",
];

/// Words in the title of a heading before a path that announce something else than the file.
pub(super) const OTHER_TITLES: [&str; 50] = [
    "actual",
    "bug",
    "call",
    "calling",
    "check",
    "command",
    "commands",
    "error",
    "errors",
    "expected",
    "extend",
    "fix",
    "fixed",
    "fixes",
    "from",
    "function",
    "functions",
    "helper",
    "how",
    "imports",
    "in",
    "input",
    "issue",
    "line",
    "log",
    "logs",
    "method",
    "methods",
    "new",
    "note",
    "problem",
    "query",
    "request",
    "response",
    "result",
    "results",
    "stack",
    "step",
    "test",
    "testing",
    "tests",
    "to",
    "traceback",
    "use",
    "using",
    "verify",
    "warning",
    "why",
    "with",
    "your",
];

/// Verbs that begin a remark about a change of a file.
pub(super) const CHANGES: [&str; 18] = [
    "add", "append", "change", "delete", "edit", "extend", "fix", "import", "insert", "modify", "move",
    "patch", "register", "remove", "rename", "replace", "update", "use",
];
