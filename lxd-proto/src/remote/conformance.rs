//! The suite that every implementation of [`Remote`] is held against.
//!
//! A test sets up a server with known images and runs [`all`] over the implementation.

use std::collections::HashSet;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::arch::Architecture;
use crate::filter::Filter;
use crate::fingerprint::{Fingerprint, Prefix};
use crate::image::{Image, InstanceType};
use crate::remote::{Error, Fetch, FileRole, IncomingFile, Remote, Sink, Want, fetch, resolve};

/// What did not hold, in words.
pub type Verdict = Result<(), String>;

/// An image that the server shows.
#[derive(Debug, Clone)]
pub struct KnownImage {
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// What it makes.
    pub kind: InstanceType,
    /// What it runs on.
    pub architecture: Architecture,
    /// Bytes of all its files.
    pub size: u64,
    /// Whether it has two files.
    pub split: bool,
    /// Names that lead to it when its kind and its architecture are wanted.
    pub aliases: Vec<String>,
}

/// Holds `remote` to all that a [`Remote`] promises, given that it shows exactly `known`, at
/// least one image.
pub async fn all(remote: &dyn Remote, known: &[KnownImage]) -> Verdict {
    lists(remote, known).await?;
    filters(remote, known).await?;
    finds_by_fingerprint(remote, known).await?;
    finds_by_alias(remote, known).await?;
    for image in known {
        fetches(remote, image).await?;
        takes_up(remote, image).await?;
    }
    if let Some(image) = known.first() {
        tells_other_images_apart(remote, image).await?;
        passes_on_what_the_sink_says(remote, image).await?;
        cancels(remote, image).await?;
        serves_several_at_once(remote, image).await?;
    }
    Ok(())
}

/// Every image is listed once, as what it is.
pub async fn lists(remote: &dyn Remote, known: &[KnownImage]) -> Verdict {
    let listed = said(remote.images(&Filter::default()).await, "the list of images")?;
    let unique: HashSet<_> = listed.iter().map(|image| image.fingerprint).collect();
    same("images", &listed.len(), &known.len())?;
    same("different images", &unique.len(), &known.len())?;
    for expected in known {
        let image = listed.iter().find(|image| image.fingerprint == expected.fingerprint);
        let image = image.ok_or_else(|| format!("{} is not listed", expected.fingerprint))?;
        as_known(image, expected)?;
    }
    Ok(())
}

/// A filter lets pass what it would let pass of the whole list.
pub async fn filters(remote: &dyn Remote, known: &[KnownImage]) -> Verdict {
    let Some(first) = known.first() else { return Ok(()) };
    for text in [
        format!("type eq {}", first.kind),
        format!("architecture eq {}", first.architecture),
        format!("not fingerprint eq {}", first.fingerprint),
        "public eq true".to_owned(),
        "properties.os eq nothing-has-this".to_owned(),
    ] {
        let filter =
            Filter::parse(&text).map_err(|error| format!("the filter \"{text}\": {error}"))?;
        let all = said(remote.images(&Filter::default()).await, "the list of images")?;
        let some = said(remote.images(&filter).await, "a filtered list")?;
        let expected: HashSet<_> = all
            .iter()
            .filter(|image| filter.matches(*image))
            .map(|image| image.fingerprint)
            .collect();
        let got: HashSet<_> = some.iter().map(|image| image.fingerprint).collect();
        same(&format!("images under \"{text}\""), &got, &expected)?;
    }
    Ok(())
}

/// An image is found by its fingerprint and by its beginning; what is not there is not found.
pub async fn finds_by_fingerprint(remote: &dyn Remote, known: &[KnownImage]) -> Verdict {
    for expected in known {
        let full = expected.fingerprint.to_string();
        for digits in [&full[..], &full[..12], &full.to_uppercase()[..20]] {
            let prefix: Prefix = digits.parse().map_err(|_| format!("{digits} is no prefix"))?;
            let image = said(remote.image(&prefix, None).await, digits)?;
            as_known(&image, expected)?;
        }
        let want = Want::default();
        let resolved = said(resolve(remote, &full[..12], &want, None).await, "resolve")?;
        same("the resolved image", &resolved.image.fingerprint, &expected.fingerprint)?;
        same("the alias of a fingerprint", &resolved.alias, &None)?;
    }
    let nothing = stranger(known);
    not_found(remote.image(&Prefix::from(nothing), None).await, "an unknown fingerprint")
}

/// Aliases are listed, lead to their images, and to no others.
pub async fn finds_by_alias(remote: &dyn Remote, known: &[KnownImage]) -> Verdict {
    let listed = said(remote.aliases().await, "the list of aliases")?;
    for entry in &listed {
        let target = known.iter().find(|image| image.fingerprint == entry.target);
        let target = target.ok_or_else(|| format!("{} leads to no image", entry.name))?;
        same(&format!("the type of {}", entry.name), &entry.kind, &target.kind)?;
    }
    for expected in known {
        let want = Want {
            kind: Some(expected.kind),
            architecture: Some(expected.architecture),
            fresh: true,
        };
        for name in &expected.aliases {
            if !listed.iter().any(|entry| entry.name == *name) {
                return Err(format!("the alias {name} is not listed"));
            }
            let entry = said(remote.alias(name, &want).await, name)?;
            same(&format!("the image of {name}"), &entry.target, &expected.fingerprint)?;
            same("the alias's name", &entry.name, name)?;
            let resolved = said(resolve(remote, name, &want, None).await, name)?;
            same("the resolved image", &resolved.image.fingerprint, &expected.fingerprint)?;
            same("the resolved alias", &resolved.alias.as_ref(), &Some(name))?;
            let any = said(remote.alias(name, &Want::default()).await, name)?;
            if !known.iter().any(|image| image.fingerprint == any.target) {
                return Err(format!("{name} leads to an unknown image when anything is wanted"));
            }
        }
        for name in &expected.aliases {
            let other = match expected.kind {
                InstanceType::Container => InstanceType::VirtualMachine,
                InstanceType::VirtualMachine => InstanceType::Container,
            };
            let both =
                known.iter().any(|image| image.kind == other && image.aliases.contains(name));
            if !both {
                let want = Want { kind: Some(other), ..Want::default() };
                not_found(remote.alias(name, &want).await, "an alias of the other type")?;
            }
        }
    }
    let missing = remote.alias("no image has this name", &Want::default()).await;
    not_found(missing, "an unknown alias")?;
    not_found(resolve(remote, "no/image/has", &Want::default(), None).await, "an unknown name")
}

/// All files come, in the order of hashing, each byte counted once.
pub async fn fetches(remote: &dyn Remote, known: &KnownImage) -> Verdict {
    let image = info(remote, known).await?;
    let request = Fetch::default();
    let mut sink = Gather::default();
    said(fetch(remote, &image, &request, &mut sink).await, "the image")?;
    let expected: &[FileRole] = if known.split {
        &[FileRole::Metadata, FileRole::Rootfs(known.kind)]
    } else {
        &[FileRole::Unified]
    };
    let roles: Vec<_> = sink.files.iter().map(|(file, _)| file.role).collect();
    same("the files", &roles.as_slice(), &expected)?;
    same("the hash of the files", &sink.fingerprint(), &known.fingerprint)?;
    same("the bytes that came", &sink.size(), &known.size)?;
    same("the bytes that were counted", &request.progress.done(), &known.size)?;
    same("the bytes that were announced", &request.progress.total(), &Some(known.size))?;
    for (file, bytes) in &sink.files {
        if file.filename.contains(['/', '\\']) || matches!(file.filename.as_str(), "." | "..") {
            return Err(format!("\"{}\" is no name of a file", file.filename));
        }
        if file.length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(format!("{:?} was announced with another length", file.role));
        }
    }
    Ok(())
}

/// What a sink holds already is not written again, wherever it ends.
pub async fn takes_up(remote: &dyn Remote, known: &KnownImage) -> Verdict {
    let image = info(remote, known).await?;
    let mut whole = Gather::default();
    said(fetch(remote, &image, &Fetch::default(), &mut whole).await, "the image")?;
    for share in [1, 2, 3] {
        for last in 0..whole.files.len() {
            // All files before the last one are there, and thirds of that one.
            let held = whole.files[..=last].iter().enumerate().map(|(at, (_, bytes))| {
                let end = if at == last { bytes.len() * share / 3 } else { bytes.len() };
                bytes[..end].to_vec()
            });
            let mut sink = Gather { held: held.collect(), ..Gather::default() };
            let request = Fetch::default();
            said(remote.download(&image, &request, &mut sink).await, "a part of the image")?;
            same("the hash after taking up", &sink.fingerprint(), &known.fingerprint)?;
            same("the bytes counted after taking up", &request.progress.done(), &known.size)?;
        }
    }
    // Who only hashes what comes cannot vouch for what came earlier.
    let mut sink = Gather { held: vec![vec![0]], ..Gather::default() };
    match fetch(remote, &image, &Fetch::default(), &mut sink).await {
        Err(Error::Io { .. }) => Ok(()),
        other => Err(format!("fetch took bytes it did not hash: {other:?}")),
    }
}

/// The right files under another fingerprint are refused.
pub async fn tells_other_images_apart(remote: &dyn Remote, known: &KnownImage) -> Verdict {
    let mut image = info(remote, known).await?;
    image.fingerprint = stranger(std::slice::from_ref(known));
    match fetch(remote, &image, &Fetch::default(), &mut Gather::default()).await {
        Err(_) => Ok(()),
        Ok(()) => Err("an image came under a fingerprint that is not its own".to_owned()),
    }
}

/// A failure of the sink ends the download, with its words.
pub async fn passes_on_what_the_sink_says(remote: &dyn Remote, known: &KnownImage) -> Verdict {
    let image = info(remote, known).await?;
    let mut sink = Gather { fails: true, ..Gather::default() };
    match remote.download(&image, &Fetch::default(), &mut sink).await {
        Err(Error::Io { source, .. }) if source.to_string().contains("disk full") => Ok(()),
        other => Err(format!("a full disk was told as {other:?}")),
    }
}

/// A download that was cancelled before it began does not begin.
pub async fn cancels(remote: &dyn Remote, known: &KnownImage) -> Verdict {
    let image = info(remote, known).await?;
    let request = Fetch::default();
    request.cancel.cancel();
    let mut sink = Gather::default();
    let ended = remote.download(&image, &request, &mut sink).await;
    if !matches!(ended, Err(Error::Cancelled)) {
        return Err(format!("a cancelled download ended as {ended:?}"));
    }
    same("files of a cancelled download", &sink.files.len(), &0)
}

/// Four at once get what one gets.
pub async fn serves_several_at_once(remote: &dyn Remote, known: &KnownImage) -> Verdict {
    let results = tokio::join!(
        fetches(remote, known),
        fetches(remote, known),
        fetches(remote, known),
        fetches(remote, known),
    );
    results.0.and(results.1).and(results.2).and(results.3)
}

async fn info(remote: &dyn Remote, known: &KnownImage) -> Result<Image, String> {
    let id = Prefix::from(known.fingerprint);
    said(remote.image(&id, None).await, "the image's description")
}

fn as_known(image: &Image, known: &KnownImage) -> Verdict {
    same("the fingerprint", &image.fingerprint, &known.fingerprint)?;
    same("the type", &image.kind, &known.kind)?;
    same("the architecture", &image.architecture, &known.architecture)?;
    same("the size", &image.size, &known.size)
}

/// A fingerprint that none of them has.
fn stranger(known: &[KnownImage]) -> Fingerprint {
    let all: Vec<u8> = known.iter().flat_map(|image| *image.fingerprint.as_bytes()).collect();
    Fingerprint::from_bytes(Sha256::digest(all).into())
}

fn said<T>(answer: Result<T, Error>, what: &str) -> Result<T, String> {
    answer.map_err(|error| format!("{what}: {error}"))
}

fn not_found<T>(answer: Result<T, Error>, what: &str) -> Verdict {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(format!("{what} is told as: {error}")),
        Ok(_) => Err(format!("{what} is found")),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Verdict {
    if got == expected { Ok(()) } else { Err(format!("{what}: {got:?} instead of {expected:?}")) }
}

/// Gathers files, of which it may hold the beginnings already.
#[derive(Debug, Default)]
struct Gather {
    files: Vec<(IncomingFile, Vec<u8>)>,
    held: Vec<Vec<u8>>,
    fails: bool,
}

impl Gather {
    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        self.files.iter().for_each(|(_, bytes)| hash.update(bytes));
        Fingerprint::from_bytes(hash.finalize().into())
    }

    fn size(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

#[async_trait]
impl Sink for Gather {
    async fn begin(&mut self, file: &IncomingFile) -> io::Result<u64> {
        let held = self.held.get(self.files.len()).cloned().unwrap_or_default();
        let length = held.len() as u64;
        self.files.push((file.clone(), held));
        Ok(length)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if self.fails {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full"));
        }
        match self.files.last_mut() {
            Some((_, file)) => file.extend_from_slice(&bytes),
            None => return Err(io::Error::other("bytes before the first file")),
        }
        Ok(())
    }
}
