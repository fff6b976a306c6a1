//! The archive of a bundle: where everything lies follows from the manifest, so what is between the
//! files is compared with what it must be, and nothing that an archive says about itself is believed.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::bundle::{
    BLOCK, MAX_MANIFEST, Manifest, entry_name, manifest_hash, manifest_name, padded,
};
use sha2::{Digest, Sha256};

/// One block.
type Block = [u8; 512];
/// A block of zeros; two are the end mark.
const EMPTY: Block = [0; 512];
/// The archive's end may be filled up so far, as tar programs do.
const FILLED: u64 = 20 * BLOCK;

/// The header of an entry.
pub(super) fn header(name: &str, size: u64) -> io::Result<Block> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// What fills up the last block of so many bytes.
pub(super) fn padding(size: u64) -> &'static [u8] {
    let rest = padded(size) - size;
    &EMPTY[..usize::try_from(rest).unwrap_or(0)]
}

/// The end mark of an archive.
pub(super) const fn end() -> [u8; 2 * EMPTY.len()] {
    [0; 2 * EMPTY.len()]
}

/// A bundle whose manifest is sound and that holds nothing else.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) manifest: Manifest,
    /// Where each file begins, and how long it is.
    pub(super) places: HashMap<Fingerprint, Place>,
}

/// Where a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// What is wrong with its header, or that it is cut off.
    pub(super) damage: Option<&'static str>,
}

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    #[error("it is no bundle of a mirror: {0}")]
    NoBundle(String),
    #[error("{0}")]
    Manifest(#[from] lxd_proto::mirror::InvalidMirror),
    #[error("it holds something that its manifest does not tell: {0}")]
    Foreign(String),
}

impl Bundle {
    /// Reads the manifest and looks at everything that is no file.
    pub(super) fn open(file: &mut (impl Read + Seek)) -> Result<Self, Error> {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let manifest = manifest(file)?;
        manifest.check()?;
        let (text_size, mut at) = {
            let position = file.stream_position()?;
            (position - BLOCK, BLOCK)
        };
        at += padded(text_size);
        let mut places = HashMap::with_capacity(manifest.files.len());
        for known in &manifest.files {
            let damage = entry(file, at, length, &entry_name(&known.sha256), known.size)?;
            let place = Place { offset: at + BLOCK, size: known.size, damage };
            places.insert(known.sha256, place);
            at += BLOCK + padded(known.size);
        }
        nothing_more(file, at, length)?;
        Ok(Self { manifest, places })
    }
}

/// The first entry.
fn manifest(file: &mut impl Read) -> Result<Manifest, Error> {
    let no = |why: &str| Error::NoBundle(why.to_owned());
    let mut block = EMPTY;
    file.read_exact(&mut block).map_err(|_| no("it is too short"))?;
    let found = tar::Header::from_byte_slice(&block);
    let size = found.entry_size().unwrap_or(0);
    let told = str::from_utf8(&found.path_bytes()).ok().and_then(manifest_hash);
    let Some(sha256) = told else { return Err(no("it does not begin with a manifest")) };
    if header(&manifest_name(&sha256), size)? != block {
        return Err(no("the header of its manifest is damaged"));
    }
    if size > MAX_MANIFEST {
        return Err(no("its manifest is too large"));
    }
    let mut text = Vec::new();
    file.take(size).read_to_end(&mut text)?;
    if text.len() as u64 != size {
        return Err(no("its manifest is cut off"));
    }
    if Fingerprint::from_bytes(Sha256::digest(&text).into()) != sha256 {
        return Err(no("its manifest is damaged: it does not have the SHA-256 that it should"));
    }
    serde_json::from_slice(&text).map_err(|error| no(&format!("its manifest: {error}")))
}

/// Looks at the header of an entry that must have this name and size. A header that was damaged on
/// the way is no reason to give up the rest; a sound one of something else is.
fn entry(
    file: &mut (impl Read + Seek),
    at: u64,
    length: u64,
    name: &str,
    size: u64,
) -> Result<Option<&'static str>, Error> {
    if at + BLOCK + size > length {
        return Ok(Some("the bundle ends before it"));
    }
    let mut block = EMPTY;
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut block)?;
    if header(name, size)? == block {
        return Ok(None);
    }
    let found = tar::Header::from_byte_slice(&block);
    let sound = found.cksum().is_ok_and(|sum| sum == checksum(&block));
    if sound && block != EMPTY {
        let path = String::from_utf8_lossy(&found.path_bytes()).into_owned();
        let path: String = path.chars().take(200).collect();
        return Err(Error::Foreign(format!("\"{}\" in the place of {name}", path.escape_debug())));
    }
    Ok(Some("its header is damaged"))
}

/// The sum over a header in which the sum itself counts as blanks.
fn checksum(block: &Block) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// After the last file comes the end mark, and nothing behind it.
fn nothing_more(file: &mut (impl Read + Seek), at: u64, length: u64) -> Result<(), Error> {
    if length <= at {
        return Ok(());
    }
    let more = length - at;
    if more > FILLED {
        return Err(Error::Foreign(format!("{more} bytes behind its last file")));
    }
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(more).read_to_end(&mut rest)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Error::Foreign("an entry behind its last file".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::mirror::bundle::{BundledFile, BundledImage, FORMAT};
    use std::io::Cursor;

    fn print(bytes: &[u8]) -> Fingerprint {
        Fingerprint::from_bytes(Sha256::digest(bytes).into())
    }

    fn bundle(files: &[&[u8]]) -> (Manifest, Vec<u8>) {
        let image = |bytes: &&[u8]| BundledImage {
            fingerprint: print(bytes),
            product: "p".into(),
            serial: "20260101".into(),
            kind: lxd_proto::image::InstanceType::Container,
            architecture: lxd_proto::arch::Architecture::X86_64,
            properties: lxd_proto::image::Properties::new(),
            aliases: Vec::new(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: jiff::Timestamp::UNIX_EPOCH,
            filename: String::new(),
            size: bytes.len() as u64,
            metadata: print(bytes),
            root: None,
        };
        let file = |bytes: &&[u8]| BundledFile { sha256: print(bytes), size: bytes.len() as u64 };
        let manifest = Manifest {
            format: FORMAT.into(),
            mirror: "m".parse().unwrap(),
            keep: 1,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            images: files.iter().map(image).collect(),
            files: files.iter().map(file).collect(),
        };
        let mut out = Vec::new();
        let mut add = |name: &str, bytes: &[u8]| {
            out.extend(header(name, bytes.len() as u64).unwrap());
            out.extend(bytes);
            out.extend(padding(bytes.len() as u64));
        };
        let text = serde_json::to_vec(&manifest).unwrap();
        add(&manifest_name(&print(&text)), &text);
        files.iter().for_each(|bytes| add(&entry_name(&print(bytes)), bytes));
        out.extend(end());
        (manifest, out)
    }

    fn open(bytes: &[u8]) -> Result<Bundle, Error> {
        Bundle::open(&mut Cursor::new(bytes))
    }

    #[test]
    fn a_bundle_says_where_its_files_are() {
        let files: [&[u8]; 2] = [&[1; 700], &[2; 512]];
        let (manifest, bytes) = bundle(&files);
        let opened = open(&bytes).unwrap();
        assert_eq!(opened.manifest, manifest);
        for file in files {
            let place = &opened.places[&print(file)];
            assert_eq!(place.damage, None);
            let begin = usize::try_from(place.offset).unwrap();
            assert_eq!(&bytes[begin..begin + file.len()], file);
        }
        // Any tar reads it.
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|it| it.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.len(), 3);
        assert!(manifest_hash(&names[0]).is_some(), "{}", names[0]);
    }

    #[test]
    fn no_byte_of_the_manifest_changes_unnoticed() {
        let (manifest, bytes) = bundle(&[&[1; 700]]);
        let end = 512 + serde_json::to_vec(&manifest).unwrap().len();
        for at in 0..end {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(matches!(open(&damaged), Err(Error::NoBundle(_))), "byte {at}");
        }
    }

    #[test]
    fn damage_costs_its_file_only() {
        let (_, bytes) = bundle(&[&[1; 700], &[2; 512]]);
        let place = |opened: &Bundle, file: &[u8]| opened.places[&print(file)].damage;
        let first =
            usize::try_from(open(&bytes).unwrap().places[&print(&[1; 700])].offset).unwrap();
        let mut damaged = bytes.clone();
        damaged[first - 512 + 3] ^= 1;
        let opened = open(&damaged).unwrap();
        assert!(place(&opened, &[1; 700]).is_some() && place(&opened, &[2; 512]).is_none());
        let opened = open(&bytes[..bytes.len() - 1024 - 100]).unwrap();
        assert!(place(&opened, &[1; 700]).is_none() && place(&opened, &[2; 512]).is_some());
    }

    #[test]
    fn what_the_manifest_does_not_tell_is_refused() {
        let (manifest, bytes) = bundle(&[&[1; 700], &[2; 512]]);
        let first =
            usize::try_from(open(&bytes).unwrap().places[&print(&[1; 700])].offset).unwrap();
        for name in ["files/../../etc/passwd", "/etc/passwd", "files/x", "manifest.json"] {
            let mut foreign = bytes.clone();
            let mut other = tar::Header::new_gnu();
            other.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            other.set_size(700);
            other.set_cksum();
            foreign[first - 512..first].copy_from_slice(other.as_bytes());
            assert!(matches!(open(&foreign), Err(Error::Foreign(_))), "{name}");
        }
        let mut longer = bytes.clone();
        let end = longer.len() - 1024;
        longer.splice(end..end, header("files/more", 0).unwrap());
        assert!(matches!(open(&longer), Err(Error::Foreign(_))));
        let mut filled = bytes.clone();
        filled.resize(bytes.len() + (64 << 10), 0);
        assert!(matches!(open(&filled), Err(Error::Foreign(_))));
        for cut in [0, 100, 512, 600] {
            assert!(matches!(open(&bytes[..cut]), Err(Error::NoBundle(_))), "{cut}");
        }
        let mut twice = manifest;
        twice.files.push(twice.files[0]);
        let text = serde_json::to_vec(&twice).unwrap();
        let mut out = header(&manifest_name(&print(&text)), text.len() as u64).unwrap().to_vec();
        out.extend(&text);
        out.extend(padding(text.len() as u64));
        assert!(matches!(open(&out), Err(Error::Manifest(_))));
    }
}
