//! Numbers as people write them. Nothing is here yet.
