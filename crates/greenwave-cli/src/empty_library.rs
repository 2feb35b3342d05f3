//! Nothing: the product of this crate is the program `greenwave`.
//!
//! The library exists so that the tests can depend on their own package with its optional features.
//! A program of your own uses the crate `greenwave`.
