//! Names of versions: they begin with a date, and the newest sorts last.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lxd_proto::image::Properties;

use crate::convert::serial_date;

/// The longest serial that is taken over, in bytes.
const LONGEST: usize = 64;

/// Whether clients see a version of this name: it begins with a real date.
pub fn is_serial(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '+');
    text.len() <= LONGEST && text.chars().all(plain) && serial_date(text).is_some()
}

/// The serial that an image says it has, or the minute it was made.
pub(crate) fn of(properties: &Properties, created_at: Timestamp) -> String {
    match properties.get("serial") {
        Some(serial) if is_serial(serial) => serial.clone(),
        _ => from_time(created_at),
    }
}

/// `YYYYMMDD_HHMM` in UTC: what LXD 6 reads the time of day from.
pub fn from_time(time: Timestamp) -> String {
    let time = time.max(Timestamp::UNIX_EPOCH).to_zoned_datetime(TimeZone::UTC);
    time.strftime("%Y%m%d_%H%M").to_string()
}
