//! The envelope around every JSON reply: seven keys, always all of them, in one order.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A reply as it stands on the wire. `metadata` is kept unparsed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// `sync`, `async` or `error`.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// `Success`, `Operation created`, or empty for an error.
    #[serde(default)]
    pub status: String,
    /// 200, 100, or 0 for an error.
    #[serde(default)]
    pub status_code: u16,
    /// The path of the operation, for `async`.
    #[serde(default)]
    pub operation: String,
    /// The HTTP status, for `error`.
    #[serde(default)]
    pub error_code: u16,
    /// What went wrong, for `error`.
    #[serde(default)]
    pub error: String,
    /// The answer itself.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
}

/// Which of the three shapes a reply has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The answer is here.
    Sync,
    /// An operation was started.
    Async,
    /// It failed.
    Error,
}

/// The two parts of an envelope around the rendered metadata of a successful reply:
/// `head + metadata + tail` is the whole body.
pub const SYNC_HEAD: &str = r#"{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":"#;

/// Ends every envelope.
pub const TAIL: &str = "}\n";

/// A whole successful reply around already rendered JSON.
pub fn sync(metadata: &str) -> String {
    let mut body = String::with_capacity(SYNC_HEAD.len() + metadata.len() + TAIL.len());
    body.push_str(SYNC_HEAD);
    body.push_str(metadata);
    body.push_str(TAIL);
    body
}

/// The reply to a request that started the operation at `path`; `metadata` is the operation.
pub fn operation_created(path: &str, metadata: &str) -> String {
    format!(
        r#"{{"type":"async","status":"Operation created","status_code":100,"operation":"{path}","error_code":0,"error":"","metadata":{metadata}}}{}"#,
        "\n"
    )
}

/// The reply to a request that failed with the HTTP status `code`.
pub fn error(code: u16, message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(
        r#"{{"type":"error","status":"","status_code":0,"operation":"","error_code":{code},"error":{message},"metadata":null}}{}"#,
        "\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_has_the_seven_keys_in_order() {
        let keys =
            ["type", "status", "status_code", "operation", "error_code", "error", "metadata"];
        for body in [sync("[]"), operation_created("/x", "{}"), error(404, "Image \"a\" not found")]
        {
            let mut last = 0;
            for key in keys {
                let at = body.find(&format!("\"{key}\":")).unwrap();
                assert!(at >= last, "{body}");
                last = at;
            }
            serde_json::from_str::<Envelope>(&body).unwrap();
        }
    }
}
