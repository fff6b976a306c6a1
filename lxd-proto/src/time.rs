//! The protocol's two spellings of "no time": Go's zero time and the unix epoch.

use jiff::Timestamp;

/// Unix seconds of `0001-01-01T00:00:00Z`, which Go writes for a time that was never set.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

/// Go's zero time, `0001-01-01T00:00:00Z`: "never" in `last_used_at`, "unset" in requests.
pub fn zero() -> Timestamp {
    Timestamp::from_second(GO_ZERO_SECONDS).unwrap_or(Timestamp::MIN)
}

/// The epoch, `1970-01-01T00:00:00Z`: what LXD writes for an image that never expires.
pub fn epoch() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Whether `time` stands for "not set": year 1 or earlier, or at or before the epoch.
pub fn is_unset(time: Timestamp) -> bool {
    time <= Timestamp::UNIX_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zero_time_is_spelled_as_go_does() {
        assert_eq!(zero().to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(epoch().to_string(), "1970-01-01T00:00:00Z");
        assert!(is_unset(zero()) && is_unset(epoch()));
    }
}
