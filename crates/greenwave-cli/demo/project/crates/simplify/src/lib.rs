//! A smaller tree with the same value. Not implemented yet.
