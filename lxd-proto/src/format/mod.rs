//! Image files: what they are, whether they can be trusted, and how to make them.

mod check;
mod compressor;
mod decoder;
mod error;
mod extract;
mod file_type;
mod layout;
mod names;
mod pack;
mod parallel_gzip;
mod qcow2;
mod read_at;
mod squashfs;
mod tar_check;
mod tar_header;
mod tar_reader;
#[cfg(test)]
pub(crate) mod testing;
mod xz;

pub use check::{Checker, Findings, Known};
pub use compressor::Compressor;
pub use decoder::Decoder;
pub use error::FormatError;
pub use extract::{Extracted, Extractor, Receiver};
pub use file_type::{Compression, FileType, UnknownCompression};
pub use layout::{Limits, Role};
pub use pack::{PackError, encode_entry, pack_directory};
pub use read_at::ReadAt;
pub use tar_header::{Attributes, Fragment, Timestamp};
pub use tar_reader::{Entry, EntryKind};
pub use xz::{XzSummary, prove_complete};
