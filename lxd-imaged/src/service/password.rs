//! The trust password: kept as a salted hash only, compared in constant time.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, pbkdf2, rand};

use crate::error::{Error, Result};

/// Rounds of the hash.
const ROUNDS: NonZeroU32 = match NonZeroU32::new(210_000) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};
/// The most rounds that a stored hash may ask for.
const MAX_ROUNDS: u32 = 10_000_000;
const KIND: &str = "pbkdf2-sha256";

/// The hash to keep. Takes a tenth of a second of a core: call it where that may be.
pub fn hash(password: &str) -> Result<String> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| Error::Internal("no randomness for a password".into()))?;
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut hash);
    Ok(format!("{KIND}${ROUNDS}${}${}", hex::encode(salt), hex::encode(hash)))
}

/// Whether `stored` was made of `password`. Takes as long as [`hash`].
pub fn matches(stored: &str, password: &str) -> bool {
    let mut fields = stored.split('$');
    let mut field = || fields.next().unwrap_or_default();
    let (kind, rounds, salt, hash) = (field(), field(), field(), field());
    let rounds = rounds.parse().ok().filter(|rounds: &NonZeroU32| rounds.get() <= MAX_ROUNDS);
    let (Some(rounds), Ok(salt), Ok(hash)) = (rounds, hex::decode(salt), hex::decode(hash)) else {
        return false;
    };
    kind == KIND
        && hash.len() == digest::SHA256_OUTPUT_LEN
        && pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &hash)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_kept_as_it_is() {
        let (first, second) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert!(!first.contains("secret"));
        assert_ne!(first, second, "each hash has its own salt");
        assert!(matches(&first, "secret") && matches(&second, "secret"));
        for wrong in ["", "Secret", "secret ", "true"] {
            assert!(!matches(&first, wrong), "{wrong}");
        }
        for broken in ["", "true", "pbkdf2-sha256$1$$", "pbkdf2-sha256$99999999999$aa$bb"] {
            assert!(!matches(broken, ""), "{broken}");
        }
    }
}
