//! Running tests: one test, a whole suite, and what each test gets for itself.

pub(crate) mod blocking;
pub(crate) mod continuation;
pub(crate) mod environment;
pub(crate) mod go_homes;
pub(crate) mod isolation;
mod left_objects;
pub(crate) mod observation;
pub(crate) mod options;
pub(crate) mod output_observer;
pub(crate) mod private_dir;
pub(crate) mod process;
pub(crate) mod reported;
pub(crate) mod runner;
mod running_process;
pub(crate) mod servers;
pub(crate) mod shard;
pub(crate) mod slots;
pub(crate) mod suite;
pub(crate) mod test_id;
pub(crate) mod toolchain;
pub(crate) mod withheld;
pub(crate) mod workspace;
