//! Times on the wire: RFC 3339 in the years that Go can read, and the protocol's two spellings of
//! "no time", Go's zero time and the unix epoch.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};

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

/// The time so many seconds after the epoch.
///
/// # Errors
/// `None` outside the years 1 to 9999: one such time makes Go's clients refuse a whole list.
pub fn from_seconds(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok().filter(|time| *time >= zero())
}

/// A time as text, RFC 3339.
///
/// The last day of the year 9999, which stands for "never", is later than what [`Timestamp`]
/// holds: the latest that it does hold takes its place.
///
/// # Errors
/// `None` for what is none, and outside the years 1 to 9999.
pub fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time).filter(|time| *time >= zero());
    }
    let last_days = text.starts_with("9999-12-3");
    let without_offset = text.get(.."9999-12-31T23:59:59".len()).unwrap_or_default();
    let is_a_time = without_offset.parse::<jiff::civil::DateTime>().is_ok();
    (last_days && is_a_time).then_some(latest())
}

/// The latest time there is, in whole seconds.
fn latest() -> Timestamp {
    Timestamp::from_second(Timestamp::MAX.as_second()).unwrap_or(Timestamp::MAX)
}

/// For `#[serde(deserialize_with)]`: [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        de::Error::custom(format_args!("\"{text}\" is no RFC 3339 time in the years 1 to 9999"))
    })
}

/// For `#[serde(deserialize_with)]`: [`parse`], or `None` for null.
pub fn deserialize_option<'de, D>(deserializer: D) -> Result<Option<Timestamp>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    struct Time(#[serde(deserialize_with = "deserialize")] Timestamp);
    Ok(Option::<Time>::deserialize(deserializer)?.map(|time| time.0))
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

    #[test]
    fn times_that_go_cannot_read_are_refused() {
        for text in ["-000001-01-01T00:00:00Z", "-009999-01-02T01:59:59Z", "yesterday", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(from_seconds(-377_705_023_201), None);
        assert_eq!(from_seconds(i64::MAX), None);
        assert_eq!(from_seconds(GO_ZERO_SECONDS), Some(zero()));
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(zero()));
    }

    #[test]
    fn the_last_day_stands_for_never() {
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T00:00:00+01:00"] {
            assert_eq!(parse(text).unwrap().to_string(), "9999-12-30T22:00:00Z", "{text}");
        }
        assert_eq!(parse("9999-12-3"), None);
    }
}
