//! The stores of the suite `storage` behind one face, and what they are fed with. Knows nothing of what is made of the figures.

mod corpus;
mod process;
mod retries;
mod store;

pub use corpus::{Corpus, Sizes, Work, sources};
pub use process::{Usage, drop_page_cache, folder_bytes};
pub use retries::{Kept, Retries};
pub use store::{STORES, Stored, open};
