//! What all suites share: the machine they run on, and the page they write. Knows nothing of what is measured.
//!
//! A suite is a program in `suites/`. It states what it expects in a constant, measures, and hands [`Row`]s to a
//! [`Page`]. `cargo bench -p greenwave-benches --bench NAME` prints the page; `cargo xtask bench NAME` also writes it
//! into `benches/results/DATE-MACHINE/`. Run by `cargo test`, a suite measures nothing.
//!
//! ```
//! use greenwave_benches::{Page, Row};
//!
//! let row = Row::new("an empty loop", "ns", [1.1, 1.0, 1.2]).at_most(2.0);
//! let page = Page { suite: "example", about: "What and how.", rows: vec![row] };
//! assert!(page.to_markdown().contains("| an empty loop | at most 2.0 ns | 1.1 ns | 1.0 to 1.2 | 3 | yes |"));
//! ```
//!
//! There are no features, and no errors: a benchmark that cannot measure panics.

mod machine;
mod report;

pub use machine::Machine;
pub use report::{Page, Row, criterion, is_measuring, samples};
