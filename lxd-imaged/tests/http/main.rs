//! The real router over a throw-away store, in process.
#![expect(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test says what it expects by failing"
)]

mod daemon;
mod images;
mod requests;
mod streams;
mod uploads;
