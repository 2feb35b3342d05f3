//! The functions that expressions may call. Nothing is here yet.
