//! Test runners of other tools: how their tests are found, built, started and counted.

pub(crate) mod batch;
pub(crate) mod cargo;
pub(crate) mod crash_bisect;
pub(crate) mod discovery;
pub(crate) mod functions;
pub(crate) mod problem;
pub(crate) mod products;
pub(crate) mod test_count;
