//! The simplestreams image protocol, and the one place that chooses a protocol for a remote.

pub mod builder;
mod cache;
mod connect;
pub mod convert;
mod delta;
pub mod document;
pub mod listing;
pub mod path;
pub mod publish;
mod remote;
mod root;
mod sign_tree;
pub mod signed;
mod transfer;
mod tree;

pub use connect::connect;
pub use remote::SimplestreamsRemote;
pub use root::RootKind;
pub use sign_tree::SignTreeError;
