//! One image of a listing as bytes.

use std::sync::Arc;

use jiff::Timestamp;
use lxd_proto::alias::ImageAlias;
use lxd_proto::arch::Architecture;
use lxd_proto::image::{Image, InstanceType, Properties, Verified};
use lxd_proto::time;

use crate::convert::{Delta, ImageFiles, Listed, RemoteFile};
use crate::listing::codec::{Damaged, Reader, Writer};
use crate::path::TreePath;

/// Properties, aliases or deltas of one image; catalogs stay far below.
const MAX_PARTS: usize = 70_000;

const CONTAINER: u8 = 0;
const VIRTUAL_MACHINE: u8 = 1;

pub(super) fn kind_code(kind: InstanceType) -> u8 {
    match kind {
        InstanceType::Container => CONTAINER,
        InstanceType::VirtualMachine => VIRTUAL_MACHINE,
    }
}

pub(super) fn kind(code: u8) -> Result<InstanceType, Damaged> {
    match code {
        CONTAINER => Ok(InstanceType::Container),
        VIRTUAL_MACHINE => Ok(InstanceType::VirtualMachine),
        _ => Err(Damaged),
    }
}

pub(super) fn architecture_code(architecture: Architecture) -> u8 {
    let place = Architecture::ALL.iter().position(|known| *known == architecture);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

pub(super) fn architecture(code: u8) -> Result<Architecture, Damaged> {
    Architecture::ALL.get(usize::from(code)).copied().ok_or(Damaged)
}

/// Writes an image; `aliases` are those that it has won.
pub(super) fn write(to: &mut Writer, listed: &Listed, aliases: &[String], catalog: u16) {
    let image = &listed.image;
    to.fingerprint(&image.fingerprint);
    to.byte(kind_code(image.kind));
    to.byte(architecture_code(image.architecture));
    to.long(image.size);
    to.signed(image.created_at.as_second());
    to.signed(image.expires_at.as_second());
    to.text(&image.filename);
    to.word(image.properties.len());
    for (key, value) in &image.properties {
        to.text(key);
        to.text(value);
    }
    to.word(aliases.len());
    for name in aliases {
        to.text(name);
    }
    write_file(to, Some(&listed.files.metadata));
    write_file(to, listed.files.root.as_ref());
    to.word(listed.files.deltas.len());
    for delta in &listed.files.deltas {
        to.fingerprint(&delta.base);
        write_file(to, Some(&delta.file));
    }
    to.word(usize::from(catalog));
    to.text(&listed.names);
}

fn write_file(to: &mut Writer, file: Option<&RemoteFile>) {
    let Some(file) = file else { return to.text("") };
    to.text(file.path.as_str());
    to.long(file.size.unwrap_or_default());
    match &file.sha256 {
        None => to.byte(0),
        Some(sha256) => {
            to.byte(1);
            to.fingerprint(sha256);
        }
    }
}

/// Reads an image and stops before its files.
pub(super) fn image(from: &mut Reader<'_>) -> Result<Image, Damaged> {
    let fingerprint = from.fingerprint()?;
    let kind = kind(from.byte()?)?;
    let architecture = architecture(from.byte()?)?;
    let size = from.long()?;
    let created_at = timestamp(from)?;
    let expires_at = timestamp(from)?;
    let filename = from.text()?.to_owned();
    let mut properties = Properties::new();
    for _ in 0..count(from)? {
        let key = from.text()?.to_owned();
        properties.insert(key, from.text()?.to_owned());
    }
    let mut aliases = Vec::new();
    for _ in 0..count(from)? {
        aliases.push(ImageAlias { name: from.text()?.to_owned(), description: String::new() });
    }
    Ok(Image {
        auto_update: false,
        properties,
        public: true,
        expires_at,
        profiles: Vec::new(),
        aliases,
        architecture,
        cached: false,
        filename,
        fingerprint,
        size,
        update_source: None,
        kind,
        created_at,
        last_used_at: time::zero(),
        uploaded_at: created_at,
        verified: Verified::Yes,
        refresh: None,
    })
}

/// Reads what follows the image: its files.
pub(super) fn files(from: &mut Reader<'_>) -> Result<ImageFiles, Damaged> {
    let metadata = file(from)?.ok_or(Damaged)?;
    let root = file(from)?;
    let mut deltas = Vec::new();
    for _ in 0..count(from)? {
        let base = from.fingerprint()?;
        deltas.push(Delta { base, file: file(from)?.ok_or(Damaged)? });
    }
    Ok(ImageFiles { metadata, root, deltas })
}

/// Reads an image as it was before aliases were given out, and the catalog it is from.
pub(super) fn listed(from: &mut Reader<'_>) -> Result<(u16, Listed), Damaged> {
    let mut image = image(from)?;
    image.aliases.clear();
    let files = files(from)?;
    let catalog = u16::try_from(from.word()?).map_err(|_| Damaged)?;
    let names = Arc::from(from.text()?);
    Ok((catalog, Listed { image, files, names }))
}

fn file(from: &mut Reader<'_>) -> Result<Option<RemoteFile>, Damaged> {
    let path = from.text()?;
    if path.is_empty() {
        return Ok(None);
    }
    let path = TreePath::parse(path).ok_or(Damaged)?;
    let size = Some(from.long()?).filter(|size| *size > 0);
    let sha256 = match from.byte()? {
        0 => None,
        _ => Some(from.fingerprint()?),
    };
    Ok(Some(RemoteFile { path, size, sha256 }))
}

fn count(from: &mut Reader<'_>) -> Result<usize, Damaged> {
    from.word().and_then(|count| if count <= MAX_PARTS { Ok(count) } else { Err(Damaged) })
}

fn timestamp(from: &mut Reader<'_>) -> Result<Timestamp, Damaged> {
    Timestamp::from_second(from.signed()?).map_err(|_| Damaged)
}
