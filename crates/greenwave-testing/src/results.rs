//! Results of tests: keys, records, stored state, and the up-to-date check.

pub(crate) mod decision;
pub(crate) mod dependencies;
pub(crate) mod history;
pub(crate) mod key;
pub(crate) mod key_chain;
pub(crate) mod lookup;
pub(crate) mod lookup_inputs;
pub(crate) mod more_reads;
pub(crate) mod outcome;
pub(crate) mod outputs;
mod path_table;
pub(crate) mod readers;
pub(crate) mod record;
pub(crate) mod state;
mod traces;
pub(crate) mod up_to_date;
pub(crate) mod written;
