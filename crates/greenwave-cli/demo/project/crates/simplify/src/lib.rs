//! A smaller tree with the same value. Nothing is here yet.
