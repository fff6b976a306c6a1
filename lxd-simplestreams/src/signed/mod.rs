//! Documents with an OpenPGP signature around them: RFC 4880's cleartext signatures, as `gpg
//! --clearsign` makes them and `gpgv` checks them. Pure: bytes in, value out.
//!
//! | module | owns |
//! |---|---|
//! | `text` | the frame: which lines are signed, and which bytes that makes |
//! | `file` | files of keys, binary or armoured |
//! | `keys` | what a certificate says about its keys: which may sign, and how long |
//! | [`Keyring`] | public keys, and the check |
//! | [`Signer`] | a secret key, and the signature |

mod file;
mod keyring;
mod keys;
mod signer;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use jiff::Timestamp;

pub use keyring::{Keyring, Verified};
pub use signer::{SignError, Signer};
pub(crate) use text::{form, says};

/// The largest file of keys, in bytes.
pub const MAX_KEYS: usize = 1 << 20;

/// Why a file of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not OpenPGP, or damaged.
    #[error("it holds no OpenPGP key: {0}")]
    Form(String),
    /// A keybox of GnuPG's, which only GnuPG reads.
    #[error(
        "it is a keybox of GnuPG's; export the keys: gpg --no-default-keyring --keyring FILE --export"
    )]
    Keybox,
    /// Far beyond what keys need.
    #[error("it is larger than {MAX_KEYS} bytes or holds more than {max} keys", max = file::MOST_KEYS)]
    TooLarge,
    /// To check signatures, nobody needs a secret key, and nobody else should have it.
    #[error("it holds a secret key; export the public one: gpg --export KEY")]
    Secret,
    /// Only the public half is there.
    #[error("it holds a public key only; export the secret one: gpg --export-secret-keys KEY")]
    Public,
    /// More than one key could be meant.
    #[error("it holds {0} keys; a file with one is needed")]
    Several(usize),
    /// The secret key is encrypted.
    #[error(
        "its key {0} is protected by a passphrase, which nobody can type here; remove it first"
    )]
    Passphrase(String),
    /// The key is there and may not sign.
    #[error("its key {key} cannot sign: {reason}")]
    Unusable {
        /// Fingerprint.
        key: String,
        /// Why not.
        reason: Unusable,
    },
}

/// Why a key may not sign, or its signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its owner has called it back.
    #[error("it has been revoked")]
    Revoked,
    /// Its time is over.
    #[error("it expired on {0}")]
    Expired(Timestamp),
    /// It is for something else.
    #[error("it is not meant for signing")]
    Purpose,
    /// Its owner does not vouch for it, or in no way that holds.
    #[error("nothing binds it to its owner")]
    Unbound,
    /// Signatures by such keys can be forged.
    #[error("it is too weak")]
    Weak,
    /// Younger than what it is said to have signed.
    #[error("it was made later, on {0}")]
    TooYoung(Timestamp),
    /// Not a kind of key that is known here.
    #[error("its kind is unknown")]
    Unknown,
    /// The file has no secret part of it.
    #[error("its secret part is missing")]
    Absent,
}

/// Why a signed document does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no signature.
    #[error("it is not signed")]
    Unsigned,
    /// There is one, but the document is not one signed block from its first byte to its last.
    #[error("it is not one signed block: {0}")]
    Form(String),
    /// No key of the keyring.
    #[error("it is signed by {0}, which is not in the keyring")]
    UnknownKey(String),
    /// MD5, SHA-1 and the like.
    #[error("its signature uses {0}, which can be forged")]
    WeakHash(String),
    /// The text was changed after it was signed, or the signature is a fake.
    #[error("its signature by {0} is wrong: the text has been changed")]
    Wrong(String),
    /// A good signature by a key whose word does not count.
    #[error("it is signed by {key}, but of that key: {reason}")]
    Key {
        /// Fingerprint.
        key: String,
        /// Why it does not count.
        reason: Unusable,
    },
    /// The signature was made for a time that is over.
    #[error("its signature by {key} expired on {at}")]
    Expired {
        /// Fingerprint.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The signature is from the future, or says nothing about when it was made.
    #[error("its signature by {key} is of {at}, which is not yet; are the clocks right?")]
    Future {
        /// Fingerprint.
        key: String,
        /// When.
        at: Timestamp,
    },
}
