//! Expressions as trees. Not implemented yet.
