//! Recognises files with environment variables, which usually hold secrets.

/// Ends of names of `.env` files without secrets.
const EXAMPLES: [&str; 6] = ["example", "sample", "template", "dist", "defaults", "schema"];

/// Returns whether a file has the name of a file with variables, such as `.env.local`.
pub(crate) fn is_env_file(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(".env") else { return false };
    let is_variant = rest.is_empty() || rest.starts_with('.');
    is_variant && !EXAMPLES.iter().any(|example| rest.ends_with(example)) && rest != ".d"
}
