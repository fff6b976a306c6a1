//! What the daemon does, without HTTP: each function is a use case over the store.

pub mod aliases;
pub mod direct;
pub mod guesses;
pub mod images;
pub mod instances;
pub mod join;
pub mod lineage;
pub mod password;
pub mod placed;
pub mod push;
pub mod secrets;
pub mod settings;
pub mod signing;
pub mod sources;
pub mod trust;
pub mod upload;
pub mod verify;
pub mod withdrawn;
