//! Quantities with units. Not implemented yet.
