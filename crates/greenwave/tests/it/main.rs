//! Tests of greenwave through its public face.

mod phase;
mod plan;
