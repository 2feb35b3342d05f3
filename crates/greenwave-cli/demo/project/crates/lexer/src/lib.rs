//! Splits an expression into tokens. Not implemented yet.
