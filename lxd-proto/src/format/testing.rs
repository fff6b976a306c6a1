//! What the tests of this module share: repeatable noise, and archives made by hand.

use std::io::Write;

use super::file_type::Compression;

/// A small generator of repeatable noise (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

/// A `metadata.yaml` that is good.
pub(crate) const METADATA: &[u8] = b"architecture: amd64\ncreation_date: 1424284563\n";

/// Writes tar archives by hand, so that they can be wrong in any way.
#[derive(Default)]
pub(crate) struct TarBuilder {
    bytes: Vec<u8>,
}

impl TarBuilder {
    /// Begins with what every image has: metadata.yaml and rootfs/.
    pub(crate) fn image() -> Self {
        Self::default().file("metadata.yaml", METADATA).dir("rootfs/")
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(name, b'0', "", data)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', target, b"")
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', target, b"")
    }

    pub(crate) fn entry(self, name: &str, type_flag: u8, link: &str, data: &[u8]) -> Self {
        self.tweaked(name, type_flag, link, data, |_| {})
    }

    /// An entry whose header is changed before its checksum is made.
    pub(crate) fn tweaked(
        mut self,
        name: &str,
        type_flag: u8,
        link: &str,
        data: &[u8],
        tweak: impl FnOnce(&mut [u8; 512]),
    ) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"14471142123");
        header[156] = type_flag;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        tweak(&mut header);
        seal(&mut header);
        self.bytes.extend_from_slice(&header);
        self.data(data)
    }

    /// Data, filled up to whole blocks.
    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A pax extended header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let body: String = records.iter().map(|(key, value)| pax_record(key, value)).collect();
        self.entry("PaxHeaders/x", b'x', "", body.as_bytes())
    }

    /// The archive with its end marker.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The archive without its end marker.
    pub(crate) fn open_ended(self) -> Vec<u8> {
        self.bytes
    }
}

/// Puts the right checksum into a header.
pub(crate) fn seal(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn pax_record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut len = body.len() + 1;
    while format!("{len}{body}").len() != len {
        len += 1;
    }
    format!("{len}{body}")
}

/// Data as one stream of the usual tools.
pub(crate) fn compress(compression: Compression, data: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => data.to_vec(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lzma => {
            let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
            let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(data, 1).unwrap(),
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
    }
}
