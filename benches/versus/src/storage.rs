//! The stores of the suite `storage` behind one trait, and their workloads.

mod corpus;
mod process;
mod retries;
mod stores;

pub use corpus::{Corpus, Random, Sizes, sources};
pub use process::{Usage, directory_bytes, drop_page_cache};
pub use retries::{AttemptsUsage, Retries};
pub use stores::{BenchStore, STORES, open};
