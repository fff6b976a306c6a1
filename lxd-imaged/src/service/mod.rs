//! What the daemon does, without HTTP: each function is a use case over the store.

pub mod aliases;
pub mod images;
pub mod settings;
pub mod upload;
pub mod verify;
