//! Real containers of a tiny system: they need root and liblxc's tools.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what it expects by failing"
)]

mod exec;
mod isolation;
mod lifecycle;
mod machine;
mod network;
