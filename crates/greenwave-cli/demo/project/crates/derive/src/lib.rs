//! The derivative of a tree. Nothing is here yet.
