//! Quantities with units. Nothing is here yet.
