//! Splits an expression into tokens. Nothing is here yet.
