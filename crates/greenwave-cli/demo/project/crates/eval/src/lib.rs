//! The value of a tree. Nothing is here yet.
