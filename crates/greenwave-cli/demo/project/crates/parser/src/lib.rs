//! Turns tokens into a tree. Nothing is here yet.
