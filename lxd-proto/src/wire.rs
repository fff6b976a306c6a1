//! Serde habits of the protocol that more than one struct shares.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default value: Go clients send `null` for empty lists and maps.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
