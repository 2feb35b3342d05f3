//! Turns tokens into a tree. Not implemented yet.
