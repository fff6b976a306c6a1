//! Bytes: files of images on their way in, in place, and on their way out.
//!
//! Knows blobs by their SHA-256 and nothing of images, aliases or the database.

pub mod blobs;
pub mod buffers;
pub mod checks;
mod combined;
pub mod outbox;
pub mod partial;
mod recent;
pub mod spool;
mod writeback;
