//! Tests of greenwave-agents through its public face.

mod command;
mod script;
