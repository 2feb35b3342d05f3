//! Shared parts of all benchmark suites: the description of the machine, and the pages of results.
//!
//! A suite is a program in `suites/`. It states its expectations in constants, measures, and passes
//! [`Row`]s to a [`Page`]. `cargo bench -p greenwave-benches --bench NAME` prints the page. `cargo
//! xtask bench NAME` also writes it to `benches/results/DATE-MACHINE/`. A suite that `cargo test`
//! runs measures nothing.
//!
//! ```
//! use greenwave_benches::{Page, Row};
//!
//! let row = Row::new("an empty loop", "ns", [1.1, 1.0, 1.2]).at_most(2.0);
//! let page = Page { suite: "example", about: "One sentence about the measurement.", rows: vec![row] };
//! assert!(page.to_markdown().contains("| an empty loop | at most 2.0 ns | 1.1 ns | 1.0 to 1.2 | 3 | yes |"));
//! ```
//!
//! The crate has no features. A suite that cannot measure fails with any error ([`Result`]).

mod machine;
mod report;

pub use machine::Machine;
pub use report::{Page, Row, criterion, is_measuring, samples};

/// The result of a suite, or of a part of one. A suite that fails publishes no page.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
