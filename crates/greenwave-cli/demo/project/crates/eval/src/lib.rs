//! The value of a tree. Not implemented yet.
