//! The derivative of a tree. Not implemented yet.
