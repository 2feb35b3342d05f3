//! A calculator. Nothing is here yet.
