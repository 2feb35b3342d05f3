//! The functions that expressions may call. Not implemented yet.
