//! Numbers as people write them. Not implemented yet.
