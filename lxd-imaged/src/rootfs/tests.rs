//! Hostile archives against a canary, and round trips of everything a tree can hold.

mod archive;
mod hostile;
mod round_trip;
mod squash;
