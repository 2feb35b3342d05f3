//! Expressions as trees. Nothing is here yet.
