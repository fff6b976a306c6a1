//! Signed twins beside the documents of a tree on disk.

use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use crate::builder::{TreeError, disk};
use crate::document::MAX_DOCUMENT;
use crate::path::TreePath;
use crate::publish::{INDEX, SIGNED_INDEX};
use crate::signed::{KeyError, Keyring, SignError, Signer, form, says};

/// Catalogs that an index may name.
const MOST_CATALOGS: usize = 64;
/// What documents end in, unsigned and signed.
const EXTENSIONS: (&str, &str) = (".json", ".sjson");

/// Why a tree could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignTreeError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A signed document cannot be put in its place.
    #[error(transparent)]
    Write(#[from] TreeError),
    /// A document is not what it should be.
    #[error("{path}: {reason}")]
    Document {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A document could not be signed.
    #[error("{path} cannot be signed: {source}")]
    Sign {
        /// Which.
        path: String,
        /// Why not.
        source: SignError,
    },
    /// The key does not read its own signatures.
    #[error("the key cannot be used: {0}")]
    Key(#[from] KeyError),
}

/// Signs the tree in `directory`: every catalog that its index names gets a `.sjson` twin, and last
/// comes a signed index that names these. Each is replaced in one step and is on disk afterwards;
/// what this key has signed already stays as it is. Returns the paths of the signed documents, from
/// the root of the tree. Blocks.
///
/// Nobody else may change the tree meanwhile. After a failure the signed index is the old one.
///
/// # Errors
/// When there is no index, a catalog is missing or outside of the tree, or the key cannot sign.
pub(crate) fn sign_tree(directory: &Path, signer: &Signer) -> Result<Vec<String>, SignTreeError> {
    let own = Keyring::from_bytes(&signer.public_key())?;
    let mut written = Vec::new();
    for_each(directory, |Document { plain, signed, text }| {
        let at = directory.join(&signed);
        let is_signed = disk::read(&at).is_ok_and(|bytes| {
            says(&bytes, &text)
                && own.verify(&bytes).is_ok_and(|found| found.key == signer.fingerprint())
        });
        if !is_signed {
            let document = signer
                .sign_json(&text)
                .map_err(|source| SignTreeError::Sign { path: plain, source })?;
            disk::replace(&at, &document)?;
        }
        if !written.contains(&signed) {
            written.push(signed);
        }
        Ok(())
    })?;
    Ok(written)
}

/// Whether the signed documents of the tree in `directory` say what the others say, whoever has
/// signed them. Blocks.
///
/// # Errors
/// When there is no index, or a catalog is missing or outside of the tree.
pub(crate) fn is_current(directory: &Path) -> Result<bool, SignTreeError> {
    let mut all = true;
    for_each(directory, |Document { signed, text, .. }| {
        all &= disk::read(&directory.join(&signed)).is_ok_and(|bytes| says(&bytes, &text));
        Ok(())
    })?;
    Ok(all)
}

/// What is wrong with the signed documents of the tree in `directory`, by their path: one is not
/// there, says something else than its document, or, with a keyring, is not signed by a key of it.
/// Blocks.
///
/// # Errors
/// When there is no index, or a catalog is missing or outside of the tree.
pub(crate) fn faults(
    directory: &Path,
    keyring: Option<&Keyring>,
) -> Result<Vec<(String, String)>, SignTreeError> {
    let mut faults = Vec::new();
    for_each(directory, |Document { plain, signed, text }| {
        let reason = match disk::read(&directory.join(&signed)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(format!("there is no signed {plain}: sign the tree anew"))
            }
            Err(error) => Some(error.to_string()),
            Ok(bytes) => fault(&bytes, &text, &plain, keyring),
        };
        faults.extend(reason.map(|reason| (signed, reason)));
        Ok(())
    })?;
    Ok(faults)
}

/// What is wrong with one of them.
fn fault(bytes: &[u8], text: &[u8], plain: &str, keyring: Option<&Keyring>) -> Option<String> {
    if let Some(Err(refused)) = keyring.map(|keyring| keyring.verify(bytes)) {
        return Some(refused.to_string());
    }
    if says(bytes, text) {
        return None;
    }
    let form = form(bytes).err().map(|refused| refused.to_string());
    Some(form.unwrap_or_else(|| format!("it does not say what {plain} says: sign the tree anew")))
}

/// A document that is to be signed.
struct Document {
    plain: String,
    signed: String,
    /// What is signed.
    text: Vec<u8>,
}

/// Visits what a signed tree consists of: its catalogs, last the index.
fn for_each(
    directory: &Path,
    mut visit: impl FnMut(Document) -> Result<(), SignTreeError>,
) -> Result<(), SignTreeError> {
    let index = read(directory, INDEX)?;
    let mut index: Value = parse(INDEX, &index)?;
    let wrong = |reason: &str| SignTreeError::Document {
        path: INDEX.to_owned(),
        reason: reason.to_owned(),
    };
    let entries = index.get_mut("index").and_then(Value::as_object_mut);
    let entries = entries.ok_or_else(|| wrong("it has no \"index\": it is no index"))?;
    if entries.len() > MOST_CATALOGS {
        return Err(wrong("it names too many catalogs"));
    }
    for entry in entries.values_mut() {
        let Some(path) = entry.get("path").and_then(Value::as_str) else { continue };
        let plain = TreePath::parse(path).filter(|plain| plain.as_str().ends_with(EXTENSIONS.0));
        let plain = plain.ok_or_else(|| {
            wrong(&format!("it names \"{}\", which is no catalog in the tree", path.escape_debug()))
        })?;
        let stem = plain.as_str().strip_suffix(EXTENSIONS.0).unwrap_or_default();
        let signed = format!("{stem}{}", EXTENSIONS.1);
        let text = read(directory, plain.as_str())?;
        let mut about = parse(plain.as_str(), &text)?;
        entry["path"] = signed.clone().into();
        // Readers refuse a catalog that is older than its index says.
        if entry.get("updated").is_some() && about["updated"].is_string() {
            entry["updated"] = about["updated"].take();
        }
        visit(Document { plain: plain.as_str().to_owned(), signed, text })?;
    }
    let text = serde_json::to_vec_pretty(&index).map_err(|error| SignTreeError::Document {
        path: INDEX.to_owned(),
        reason: error.to_string(),
    })?;
    visit(Document { plain: INDEX.to_owned(), signed: SIGNED_INDEX.to_owned(), text })
}

fn parse(path: &str, document: &[u8]) -> Result<Value, SignTreeError> {
    serde_json::from_slice(document).map_err(|error| SignTreeError::Document {
        path: path.to_owned(),
        reason: format!("it is no JSON: {error}"),
    })
}

fn read(directory: &Path, path: &str) -> Result<Vec<u8>, SignTreeError> {
    let at = directory.join(path);
    let failed = failed(&at);
    let file = disk::open(&at).map_err(&failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes).map_err(&failed)?;
    if bytes.len() > MAX_DOCUMENT {
        let reason = format!("it is larger than {MAX_DOCUMENT} bytes");
        return Err(SignTreeError::Document { path: path.to_owned(), reason });
    }
    Ok(bytes)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SignTreeError + use<> {
    let path = path.display().to_string();
    move |source| SignTreeError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::signed::tests::ed25519;

    fn tree(index: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("streams/v1")).unwrap();
        fs::write(directory.path().join(INDEX), index).unwrap();
        directory
    }

    #[test]
    fn every_document_gets_a_twin_and_the_index_names_them() {
        let (signer, keyring) = ed25519();
        let directory = tree(
            r#"{"index":{"a":{"path":"streams/v1/a.json","x":1,"updated":"2"},"b":{"path":"/streams/v1/b.json"}}}"#,
        );
        let at = |path: &str| directory.path().join(path);
        fs::write(at("streams/v1/a.json"), "{\"products\": \"- a\", \"updated\": \"1\"}\n")
            .unwrap();
        fs::write(at("streams/v1/b.json"), "{}").unwrap();
        let written = ["streams/v1/a.sjson", "streams/v1/b.sjson", SIGNED_INDEX];
        assert_eq!(sign_tree(directory.path(), &signer).unwrap(), written);
        let verified = |path: &str| keyring.verify(&fs::read(at(path)).unwrap()).unwrap().payload;
        let json = |path: &str| serde_json::from_slice::<Value>(&verified(path)).unwrap();
        let index = json(SIGNED_INDEX);
        assert_eq!(index["index"]["a"]["path"], "streams/v1/a.sjson");
        assert_eq!(index["index"]["a"]["x"], 1);
        assert_eq!(index["index"]["a"]["updated"], "1");
        assert_eq!(index["index"]["b"].get("updated"), None);
        assert_eq!(index["index"]["b"]["path"], "streams/v1/b.sjson");
        assert_eq!(json("streams/v1/a.sjson")["products"], "- a");
        assert_eq!(fs::read_dir(at("streams/v1")).unwrap().count(), 6);
        assert!(is_current(directory.path()).unwrap());

        let documents = || written.each_ref().map(|path| fs::read(at(path)).unwrap());
        let before = documents();
        assert_eq!(sign_tree(directory.path(), &signer).unwrap(), written);
        assert_eq!(documents(), before, "what is signed stays to the byte");
        sign_tree(directory.path(), &ed25519().0).unwrap();
        assert!(is_current(directory.path()).unwrap());
        assert_ne!(documents(), before, "another key signs anew");
        fs::write(at("streams/v1/b.json"), "{\"products\": {}}").unwrap();
        assert!(!is_current(directory.path()).unwrap());
    }

    #[test]
    fn a_tree_that_is_not_whole_keeps_its_signed_index() {
        let (signer, _) = ed25519();
        for (index, reason) in [
            ("{", "no JSON"),
            ("{}", "no index"),
            (r#"{"index":{"a":{"path":"streams/v1/a.json"}}}"#, "streams/v1/a.json: No such file"),
            (r#"{"index":{"a":{"path":"../a.json"}}}"#, "no catalog in the tree"),
            (r#"{"index":{"a":{"path":"streams/v1/a.txt"}}}"#, "no catalog in the tree"),
        ] {
            let directory = tree(index);
            fs::write(directory.path().join(SIGNED_INDEX), "old").unwrap();
            let error = sign_tree(directory.path(), &signer).unwrap_err().to_string();
            assert!(error.contains(reason), "{index}: {error}");
            assert_eq!(fs::read(directory.path().join(SIGNED_INDEX)).unwrap(), b"old");
        }
    }
}
