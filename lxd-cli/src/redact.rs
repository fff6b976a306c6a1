//! Secrets inside of what is shown: replaced, unless asked for.

use serde_json::{Map, Value};

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Keys whose values open something.
const KEYS: &[&str] = &["secret", "password", "token", "trust_password", "core.trust_password"];

/// Replaces the secrets in a JSON value, at any depth.
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => redact_map(map),
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Replaces the secrets in a JSON object, at any depth.
pub(crate) fn redact_map(map: &mut Map<String, Value>) {
    for (key, value) in map {
        match value {
            Value::String(text) if KEYS.contains(&key.as_str()) && !text.is_empty() => {
                HIDDEN.clone_into(text);
            }
            // Secrets of an operation's websockets, by number.
            Value::Object(fds) if key == "fds" => {
                fds.values_mut().for_each(|secret| *secret = HIDDEN.into());
            }
            other => redact(other),
        }
    }
}

/// An address without the password in it.
pub(crate) fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((login, _)) = authority.rsplit_once('@') else { return address.to_owned() };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}{}", &rest[login.len()..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_keeps_all_but_its_password() {
        for (address, shown) in [
            ("https://u:p@h:1/x@y", "https://u:***@h:1/x@y"),
            ("https://u:p:q@r@h/x", "https://u:***@h/x"),
            ("https://u@h/x", "https://u@h/x"),
            ("https://h/x:y@z", "https://h/x:y@z"),
            ("unix://", "unix://"),
        ] {
            assert_eq!(without_password(address), shown);
        }
    }

    #[test]
    fn secrets_are_hidden_at_any_depth() {
        let mut value = json!({
            "metadata": {"secret": "abc", "fds": {"0": "x", "control": "y"}, "size": "7"},
            "list": [{"password": "p", "token": true, "secret": ""}],
        });
        redact(&mut value);
        let expected = json!({
            "metadata": {"secret": "***", "fds": {"0": "***", "control": "***"}, "size": "7"},
            "list": [{"password": "***", "token": true, "secret": ""}],
        });
        assert_eq!(value, expected);
    }
}
