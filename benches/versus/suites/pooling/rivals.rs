//! The pools, each in a file at its best settings.

#[path = "rivals/bb8.rs"]
mod bb8;
#[path = "rivals/deadpool.rs"]
mod deadpool;
#[path = "rivals/fast_pool.rs"]
mod fast_pool;
#[path = "rivals/greenwave.rs"]
mod greenwave;
#[path = "rivals/mobc.rs"]
mod mobc;

pub(crate) use self::bb8::Bb8;
pub(crate) use self::deadpool::Deadpool;
pub(crate) use self::fast_pool::FastPool;
pub(crate) use self::greenwave::{Greenwave, no_limits};
pub(crate) use self::mobc::Mobc;
