//! What two runs of one script may differ in, replaced by words.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// Patterns and what stands for them, in order.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    // Today's times only: what comes from the image itself must agree.
    let patterns = [
        (uuid, "UUID"),
        (r"20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
        (r"[A-Z][a-z]{2} \d{1,2}, 20[2-9]\d at \d{1,2}:\d\d[ap]m \(UTC\)", "DATE"),
        (r"20[2-9]\d/\d\d/\d\d \d\d:\d\d UTC", "DATE"),
        // A progress line that the next one overwrites: how many there are is chance.
        (r"(?:Exporting|Transferring)[^\r\n]*?\r *\r?", ""),
        (r"\r *", ""),
        // Column widths follow the masked dates.
        (r"-{3,}", "---"),
        (r" {2,}", "  "),
    ];
    patterns.map(|(pattern, word)| (Regex::new(pattern).unwrap(), word)).into()
});

/// Masks times, ids, progress and `home` in text.
pub fn text(text: &str, home: &Path) -> String {
    let home = home.parent().unwrap_or(home).display().to_string();
    let start = text.replace(&home, "HOME");
    PATTERNS
        .iter()
        .fold(start, |text, (pattern, word)| pattern.replace_all(&text, *word).into_owned())
}

/// Masks the strings of a JSON value; `keep` sees each key and may drop it.
pub fn json(value: &Value, home: &Path) -> Value {
    match value {
        Value::String(s) => Value::String(text(s, home)),
        Value::Array(items) => items.iter().map(|item| json(item, home)).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), json(v, home))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn masks_what_changes_and_keeps_the_rest() {
        let line = "\rTransferring image: 42% (1MB/s)\r   \rdone Nov 24, 2026 at 1:53am (UTC) 2016-03-15T11:10:00Z /t/x/d";
        assert_eq!(super::text(line, Path::new("/t/x/d")), "done DATE 2016-03-15T11:10:00Z HOME/d");
    }
}
