//! Refuses public `async fn`s in the crates whose futures contain most of the program. Every crate
//! that awaits such a future compiles it again, with all futures within it.

use crate::source::code;

/// The crates whose public functions return boxed futures.
const BOXED: [&str; 2] = ["greenwave", "greenwave-testing"];

/// Returns the violations in a file of product code.
pub(super) fn violations(package: &str, file: &str, text: &str) -> Vec<String> {
    // The suite's calls run in tests only.
    if !BOXED.contains(&package) || file.ends_with("conformance.rs") {
        return Vec::new();
    }
    let public = code(text).filter(|(_, line)| line.trim_start().starts_with("pub async fn "));
    let violation = |(number, _)| {
        format!(
            "{file}:{number}: `pub async fn`: return a future that `boxed` makes, so that it compiles once"
        )
    };
    public.map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::violations;

    #[test]
    fn public_functions_with_futures_are_found() {
        let text = "pub async fn a() {}\n    pub async fn b() {}\nasync fn c() {}\n// pub async fn d\n";
        assert_eq!(violations("greenwave", "a.rs", text).len(), 2);
        assert!(violations("greenwave-cache", "a.rs", text).is_empty());
        assert!(violations("greenwave-testing", "src/conformance.rs", text).is_empty());
    }
}
