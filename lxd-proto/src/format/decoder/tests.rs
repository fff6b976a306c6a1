//! Every codec: whole, in pieces, cut, extended, damaged.

use std::io::Write;

use super::*;
use crate::format::testing::{Random, compress};

fn decode(compression: Compression, bytes: &[u8], piece: usize) -> Result<Vec<u8>, FormatError> {
    let mut decoder = Decoder::new(compression)?;
    let mut unpacked = Vec::new();
    for input in bytes.chunks(piece) {
        decoder.feed(input, &mut |output| {
            assert!(output.len() <= PIECE);
            unpacked.extend_from_slice(output);
            Ok::<_, FormatError>(())
        })?;
    }
    decoder.finish()?;
    Ok(unpacked)
}

const CODECS: [Compression; 5] =
    [Compression::Gzip, Compression::Xz, Compression::Zstd, Compression::Bzip2, Compression::Lzma];

/// Half noise, half zeros: several pieces of output, and a long run at the end.
fn sample(len: usize) -> Vec<u8> {
    let mut data = Random::new(7).bytes(len / 2);
    data.resize(len, 0);
    data
}

#[test]
fn pieces_of_any_size_decode_alike() {
    for compression in CODECS {
        for len in [0, 1, 1000, PIECE, 3 * PIECE + 5] {
            let data = sample(len);
            let bytes = compress(compression, &data);
            for piece in [1, 7, 64 << 10, bytes.len().max(1)] {
                let unpacked = decode(compression, &bytes, piece).unwrap();
                assert!(unpacked == data, "{compression} {len} by {piece}");
            }
        }
    }
}

#[test]
fn several_streams_are_one() {
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd, Compression::Bzip2] {
        let mut bytes = compress(compression, b"one ");
        bytes.extend(compress(compression, b""));
        bytes.extend(compress(compression, b"two"));
        for piece in [1, 7, bytes.len()] {
            assert_eq!(decode(compression, &bytes, piece).unwrap(), b"one two", "{compression}");
        }
    }
}

#[test]
fn bzip2_of_nothing_over_and_over_is_refused() {
    let empty = compress(Compression::Bzip2, b"");
    assert_eq!(decode(Compression::Bzip2, &empty.repeat(1000), 1 << 16).unwrap(), b"");
    let error = decode(Compression::Bzip2, &empty.repeat(1001), 1 << 16).unwrap_err();
    assert!(error.to_string().contains("empty streams"), "{error}");
}

#[test]
fn a_cut_anywhere_is_noticed() {
    let data = sample(3000);
    for compression in CODECS {
        let bytes = compress(compression, &data);
        for len in 0..bytes.len() {
            let result = decode(compression, &bytes[..len], 1 << 16);
            assert!(
                matches!(result, Err(FormatError::Truncated { .. })),
                "{compression} cut at {len}: {result:?}"
            );
        }
        let two = [&bytes[..], &bytes[..]].concat();
        for len in bytes.len() + 1..two.len() {
            assert!(decode(compression, &two[..len], 1 << 16).is_err(), "{compression} at {len}");
        }
    }
}

#[test]
fn foreign_bytes_at_the_end_are_refused() {
    for compression in CODECS {
        let bytes = compress(compression, b"data");
        for tail in [&b"x"[..], b"garbage and more garbage", b"\0\0\0\0x"] {
            let long = [&bytes[..], tail].concat();
            for piece in [1, 1 << 16] {
                assert!(decode(compression, &long, piece).is_err(), "{compression} {tail:?}");
            }
        }
    }
    let padded = [&compress(Compression::Gzip, b"data")[..], &[0; 700]].concat();
    for piece in [1, 1 << 16] {
        assert_eq!(decode(Compression::Gzip, &padded, piece).unwrap(), b"data");
    }
    let padded = [&compress(Compression::Xz, b"data")[..], &[0; 8]].concat();
    assert_eq!(decode(Compression::Xz, &padded, 3).unwrap(), b"data");
}

#[test]
fn checksums_are_verified() {
    let data = sample(5000);
    for compression in [Compression::Gzip, Compression::Xz, Compression::Bzip2] {
        let bytes = compress(compression, &data);
        for at in [bytes.len() / 3, bytes.len() / 2] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(decode(compression, &damaged, 1 << 16).is_err(), "{compression} at {at}");
        }
    }
    let mut gzip = compress(Compression::Gzip, &data);
    let crc = gzip.len() - 8;
    gzip[crc] ^= 1;
    let error = decode(Compression::Gzip, &gzip, 1 << 16).unwrap_err();
    assert!(matches!(error, FormatError::Corrupt { .. }), "{error}");
}

#[test]
fn large_windows_are_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&sample(1000)).unwrap();
    let zstd = encoder.finish().unwrap();
    assert!(matches!(
        decode(Compression::Zstd, &zstd, 1 << 16),
        Err(FormatError::WindowTooLarge { .. })
    ));

    // The dictionary size in the header is all the decoder goes by.
    let mut lzma = compress(Compression::Lzma, b"data");
    lzma[1..5].copy_from_slice(&(256_u32 << 20).to_le_bytes());
    assert!(matches!(
        decode(Compression::Lzma, &lzma, 1 << 16),
        Err(FormatError::WindowTooLarge { .. })
    ));

    let mut lzma = compress(Compression::Lzma, b"data");
    lzma[1..5].copy_from_slice(&(128_u32 << 20).to_le_bytes());
    assert_eq!(decode(Compression::Lzma, &lzma, 1 << 16).unwrap(), b"data");
}

#[test]
fn an_error_of_the_receiver_comes_back() {
    let bytes = compress(Compression::Gzip, &sample(PIECE * 2));
    let mut decoder = Decoder::new(Compression::Gzip).unwrap();
    let result = decoder.feed(&bytes, &mut |_| Err(FormatError::MissingMetadata));
    assert!(matches!(result, Err(FormatError::MissingMetadata)));
}

#[test]
fn damaged_bytes_never_panic() {
    let mut random = Random::new(11);
    let data = sample(20_000);
    for compression in CODECS {
        let bytes = compress(compression, &data);
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(damaged.len());
                damaged[at] = random.byte();
            }
            let _ = decode(compression, &damaged, 1 + random.below(5000));
        }
    }
}
