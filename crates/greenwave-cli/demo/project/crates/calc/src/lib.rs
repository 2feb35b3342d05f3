//! A calculator. Not implemented yet.
