//! `mirror export` and `mirror import`: a mirror in one file.

mod archive;
pub(super) mod export;
pub(super) mod import;
