//! The documents of a tree: fetched when they are new, checked where they have to be signed.

use bytes::Bytes;
use lxd_proto::net::KnownVersion;
use lxd_proto::remote::Error;

use super::failure::{Failure, is_passing};
use super::provenance::{Known, Provenance};
use super::trust::{About, EXTENSION, Stamp};
use super::{Answer, MAX_CATALOGS, Tree, blocking};
use crate::convert::{self, Listed};
use crate::document::{Catalog, Index, MAX_DOCUMENT, ParseError};
use crate::path::TreePath;

/// The one path that every tree has.
const INDEX: &str = "streams/v1/index.json";
/// The same in a signed tree.
const SIGNED_INDEX: &str = "streams/v1/index.sjson";
/// What an index calls itself.
const INDEX_FORMAT: &str = "index:1.0";
/// What a catalog calls itself.
const CATALOG_FORMAT: &str = "products:1.0";
/// How much larger than the text in it a signed document may be, in bytes.
const FRAME: usize = 1 << 20;

/// A document that has come.
struct Fetched {
    version: KnownVersion,
    /// The text of it: of a signed one what is signed and nothing else.
    body: Bytes,
    stamp: Option<Stamp>,
}

impl Tree {
    /// Where the list of catalogs is.
    pub(super) fn index_path(&self) -> &'static str {
        if self.trust.is_some() { SIGNED_INDEX } else { INDEX }
    }

    /// The list of catalogs as the server has it now.
    pub(super) async fn index(&self, known: Option<&Provenance>) -> Result<Provenance, Failure> {
        let name = self.index_path();
        let path = TreePath::parse(name)
            .ok_or_else(|| self.undecodable(name, "it is no path".to_owned()))?;
        let fetched = self.document(&path, known.map(|known| &known.index)).await?;
        let fetched = match (fetched, known) {
            (Some(fetched), _) => fetched,
            (None, Some(known)) => {
                self.admit(name, known.index.stamp.as_ref())?;
                return Ok(known.with_index_checked());
            }
            (None, None) => {
                return Err(self.undecodable(name, "\"not modified\" from what?".to_owned()));
            }
        };
        let index = Index::parse(&fetched.body)
            .map_err(|error| self.undecodable(name, error.to_string()))?;
        self.must_be(name, &index.format, INDEX_FORMAT)?;
        let mut catalogs = Vec::new();
        for text in index.catalogs() {
            let Some(path) = TreePath::parse(text) else {
                let reason = format!("the catalog \"{}\" lies outside", text.escape_debug());
                return Err(self.undecodable(name, reason));
            };
            if catalogs.len() == MAX_CATALOGS {
                let reason = format!("it names more than {MAX_CATALOGS} catalogs");
                return Err(self.undecodable(name, reason));
            }
            if !catalogs.iter().any(|known: &Known| known.path == path.as_str()) {
                catalogs.push(Known { listed: self.listed(&index, text)?, ..Known::unseen(&path) });
            }
        }
        let index =
            Known { stamp: fetched.stamp, ..Known::of(&path, fetched.version, &fetched.body) };
        Ok(Provenance::new(self.key, index, catalogs))
    }

    /// What a signed index says about a catalog, which has to be signed, too.
    fn listed(&self, index: &Index, path: &str) -> Result<Option<About>, Failure> {
        if self.trust.is_none() {
            return Ok(None);
        }
        if !path.ends_with(EXTENSION) {
            let reason = format!("it names {}, which is not signed", path.escape_debug());
            return Err(self.refused(SIGNED_INDEX, reason));
        }
        let entry = index.index.iter().find(|(_, entry)| entry.path == path);
        Ok(entry.map(|(content_id, entry)| About {
            content_id: content_id.clone(),
            updated: entry.updated.clone(),
        }))
    }

    /// A catalog as the server has it now. `wanted` is what the index says about it.
    pub(super) async fn catalog(
        &self,
        wanted: Known,
        known: Option<Known>,
    ) -> Result<Answer, Failure> {
        let path = TreePath::parse(&wanted.path)
            .ok_or_else(|| self.undecodable(&wanted.path, "it is no path".to_owned()))?;
        let Some(fetched) = self.document(&path, known.as_ref()).await? else {
            let same = known.unwrap_or_else(|| Known::unseen(&path));
            let same = Known { listed: wanted.listed, ..same };
            self.belongs(&same)?;
            return Ok(Answer::Same(same));
        };
        let now = Known::of(&path, fetched.version, &fetched.body);
        let now = Known { listed: wanted.listed, ..now };
        // The same text, perhaps signed anew.
        if let Some(known) = known.filter(|known| known.sha256 == now.sha256) {
            let itself = known.stamp.map(Stamp::into_itself).unwrap_or_default();
            let same = Known { stamp: fetched.stamp.map(|stamp| stamp.of(itself)), ..now };
            self.belongs(&same)?;
            return Ok(Answer::Same(same));
        }
        let body = fetched.body;
        let parsed = blocking(move || -> Result<(String, About, Vec<Listed>), ParseError> {
            let catalog = Catalog::parse(&body)?;
            let images = convert::images(&catalog);
            let itself = About { content_id: catalog.content_id, updated: catalog.updated };
            Ok((catalog.format, itself, images))
        });
        let (format, itself, images) = match parsed.await {
            Some(Ok(parsed)) => parsed,
            Some(Err(error)) => return Err(self.undecodable(path.as_str(), error.to_string())),
            None => {
                let reason = "reading it was interrupted".to_owned();
                return Err(self.undecodable(path.as_str(), reason));
            }
        };
        self.must_be(path.as_str(), &format, CATALOG_FORMAT)?;
        let now = Known { stamp: fetched.stamp.map(|stamp| stamp.of(itself)), ..now };
        self.belongs(&now)?;
        Ok(Answer::New(now, images))
    }

    /// A document, unless it is still the known one.
    async fn document(
        &self,
        path: &TreePath,
        known: Option<&Known>,
    ) -> Result<Option<Fetched>, Failure> {
        let version = known.map(Known::version).unwrap_or_default();
        let most = if self.trust.is_some() { MAX_DOCUMENT + FRAME } else { MAX_DOCUMENT };
        let fetched = self.http.document(self.url(path).as_str(), &version, most).await;
        let fetched = fetched.map_err(|error| match (&self.trust, error) {
            (Some(_), error) if error.is_not_found() && path.as_str() == SIGNED_INDEX => {
                let reason = "the server does not have it, so its images are not signed";
                self.refused(SIGNED_INDEX, reason.to_owned())
            }
            (_, error) => Failure { passing: is_passing(&error), error },
        })?;
        let Some(document) = fetched else { return Ok(None) };
        let (version, body) = (document.version, document.body);
        let Some(trust) = self.trust.clone() else {
            return Ok(Some(Fetched { version, body, stamp: None }));
        };
        let (body, stamp) = match blocking(move || trust.verify(&body)).await {
            Some(Ok((payload, stamp))) => (payload.into(), stamp),
            Some(Err(error)) => return Err(self.refused(path.as_str(), error.to_string())),
            None => {
                let reason = "checking its signature was interrupted".to_owned();
                return Err(self.undecodable(path.as_str(), reason));
            }
        };
        self.admit(path.as_str(), Some(&stamp))?;
        Ok(Some(Fetched { version, body, stamp: Some(stamp) }))
    }

    /// Refuses a signed document that another signed document could be mistaken for.
    fn must_be(&self, path: &str, format: &str, wanted: &str) -> Result<(), Failure> {
        if self.trust.is_none() || format == wanted {
            return Ok(());
        }
        let reason = format!("its format is \"{}\", not \"{wanted}\"", format.escape_debug());
        Err(self.refused(path, reason))
    }

    /// Refuses a catalog of a signed tree that is older than one seen before, or not the one that
    /// the index means.
    pub(super) fn belongs(&self, catalog: &Known) -> Result<(), Failure> {
        self.admit(&catalog.path, catalog.stamp.as_ref())?;
        let (Some(stamp), Some(listed)) = (&catalog.stamp, &catalog.listed) else { return Ok(()) };
        stamp.matches(listed).map_err(|reason| self.refused(&catalog.path, reason))
    }

    /// Refuses a document of a signed tree whose time is over, or that is older than one seen
    /// before.
    pub(super) fn admit(&self, path: &str, stamp: Option<&Stamp>) -> Result<(), Failure> {
        let Some(trust) = &self.trust else { return Ok(()) };
        trust.admit(path, stamp).map_err(|reason| self.refused(path, reason))
    }

    /// Not for now only: what is not signed as it has to be is no reason to wait.
    fn refused(&self, path: &str, reason: String) -> Failure {
        let what = format!("{path} of {}", self.name());
        Failure { error: Error::Signature { what, reason }, passing: false }
    }

    pub(super) fn undecodable(&self, path: &str, reason: String) -> Failure {
        let what = format!("{path} of {}", self.name());
        // Perhaps somebody is just writing it.
        Failure { error: Error::Decode { what, reason }, passing: true }
    }
}
