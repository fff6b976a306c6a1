//! Mirrors: which there are, when they run, and what a run is to do. Nothing in here asks anybody or
//! changes anything; `service::mirrors` does that.
//!
//! | module | owns |
//! |---|---|
//! | `known` | the read model: mirrors, their images and aliases |
//! | [`schedule`] | when a mirror runs by itself |
//! | [`plan`] | from what a server has and what is here to what is to be done |

mod known;
pub mod plan;
pub mod schedule;

pub use known::{Kept, Mirrors};
