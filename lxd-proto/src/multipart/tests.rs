//! Forms cut anywhere, and forms that are none.

use super::*;

const BODY: &str = "--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"m\"\r\n\
    Content-Type: application/octet-stream\r\n\r\nmeta\r\n--A\r\n-\r\r\n--B \t\r\n\r\n\r\n--B\r\n\
    Content-Disposition: form-data; name=\"rootfs\"\r\n\r\n\r\n\r\r\n--\r\n--Bb\r\n--B--\r\nafter";

/// A part: name and bytes.
type Parts = Vec<(Option<String>, Vec<u8>)>;

fn drain(form: &mut Multipart, parts: &mut Parts) -> Result<bool, MultipartError> {
    while let Some(event) = form.next()? {
        match event {
            Event::Part(head) => parts.push((head.name, Vec::new())),
            Event::Data(bytes) => {
                assert!(!bytes.is_empty());
                parts.last_mut().unwrap().1.extend_from_slice(&bytes);
            }
            Event::End => return Ok(true),
        }
    }
    Ok(false)
}

fn read(body: &[u8], cuts: &[usize]) -> Result<Parts, MultipartError> {
    let mut form = Multipart::new("B", Limits::default())?;
    let mut parts = Vec::new();
    let mut start = 0;
    for &end in cuts.iter().chain([&body.len()]) {
        form.push(Bytes::copy_from_slice(&body[start..end]));
        if drain(&mut form, &mut parts)? {
            return Ok(parts);
        }
        assert_eq!(form.unread(), 0);
        start = end;
    }
    form.finish()?;
    Ok(parts)
}

fn expected() -> Parts {
    vec![
        (Some("metadata".into()), b"meta\r\n--A\r\n-\r".to_vec()),
        (None, Vec::new()),
        (Some("rootfs".into()), b"\r\n\r\r\n--".to_vec()),
    ]
}

/// A small generator, the same numbers every time.
fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    }
}

#[test]
fn a_longer_boundary_in_the_data_is_refused() {
    // "--Bb" begins like the boundary: RFC 2046 forbids a sender to do that.
    assert_eq!(read(BODY.as_bytes(), &[]), Err(MultipartError::AfterBoundary));
}

#[test]
fn any_cut_gives_the_same_parts() {
    let body = BODY.replace("\r\n--Bb", "");
    let body = body.as_bytes();
    assert_eq!(read(body, &[]).unwrap(), expected());
    for one in 0..body.len() {
        assert_eq!(read(body, &[one]).unwrap(), expected(), "{one}");
    }
    for one in 0..body.len() {
        for two in one..body.len() {
            assert_eq!(read(body, &[one, two]).unwrap(), expected(), "{one} {two}");
        }
    }
    let single: Vec<_> = (1..body.len()).collect();
    assert_eq!(read(body, &single).unwrap(), expected());
}

#[test]
fn random_data_full_of_almost_boundaries_comes_back() {
    let mut below = random(0x9e37_79b9_7f4a_7c15);
    for round in 0..400 {
        let words: [&[u8]; 7] = [b"\r", b"\n", b"\r\n", b"\r\n-", b"\r\n--", b"--B", b"x"];
        let data: Vec<u8> = (0..below(60)).flat_map(|_| words[below(7)].to_vec()).collect();
        if memchr::memmem::find(&[b"\r\n\r\n", &data[..]].concat(), b"\r\n--B").is_some() {
            continue;
        }
        let mut body = b"--B\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n".to_vec();
        body.extend_from_slice(&data);
        body.extend_from_slice(b"\r\n--B--\r\n");
        let mut cuts: Vec<_> = (0..below(12)).map(|_| below(body.len())).collect();
        cuts.sort_unstable();
        let parts = read(&body, &cuts).unwrap();
        assert_eq!(parts, [(Some("x".to_owned()), data)], "round {round}");
    }
}

#[test]
fn large_pieces_are_not_copied() {
    let mut form = Multipart::new("B", Limits::default()).unwrap();
    form.push("--B\r\n\r\n".into());
    assert!(matches!(form.next(), Ok(Some(Event::Part(_)))));
    let chunk = Bytes::from(vec![7; 1 << 20]);
    form.push(chunk.clone());
    let Ok(Some(Event::Data(data))) = form.next() else { panic!() };
    assert_eq!((data.as_ptr(), data.len()), (chunk.as_ptr(), chunk.len()));
}

#[test]
fn the_position_of_a_part_is_where_a_later_reader_goes_on() {
    let body = BODY.replace("\r\n--Bb", "");
    let body = body.as_bytes();
    for cut in 0..body.len() {
        let mut form = Multipart::new("B", Limits::default()).unwrap();
        let mut starts = Vec::new();
        for chunk in [&body[..cut], &body[cut..]] {
            form.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = form.next().unwrap() {
                if let Event::Part(_) = event {
                    starts.push(usize::try_from(form.position()).unwrap());
                }
            }
        }
        assert!(body[starts[0]..].starts_with(b"meta\r\n"), "{cut}");
        assert!(body[starts[2]..].starts_with(b"\r\n\r\r\n--\r\n--B--"), "{cut}");
        for held in 0..=expected()[0].1.len() {
            let from = starts[0] + held;
            for left in 0..=expected()[0].1.len() - held {
                let mut form =
                    Multipart::in_part("B", Limits::default(), from as u64, left as u64).unwrap();
                form.push(Bytes::copy_from_slice(&body[from..]));
                let mut parts = vec![(None, Vec::new())];
                assert!(drain(&mut form, &mut parts).unwrap());
                assert_eq!(parts[0].1, expected()[0].1[held..]);
                assert_eq!(parts[1..], expected()[1..]);
            }
        }
    }
}

#[test]
fn data_that_is_counted_may_look_like_a_boundary() {
    let mut form = Multipart::in_part("B", Limits::default(), 100, 10).unwrap();
    form.push("\r\n--B--\r\n!\r\n--B--".into());
    let mut parts = vec![(None, Vec::new())];
    assert!(drain(&mut form, &mut parts).unwrap());
    assert_eq!(parts[0].1, b"\r\n--B--\r\n!");
    assert_eq!(form.position(), 117);
}

#[test]
fn what_is_too_much_or_broken_is_refused() {
    use MultipartError as E;
    let head = "--B\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n";
    let many = head.repeat(17).replace("\r\n\r\n--B", "\r\n\r\n\r\n--B");
    let large = format!("--B\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let endless = format!("--B\r\nX: {}", "x".repeat(20_000));
    let noise = "x".repeat(5000);
    for (body, error) in [
        ("", E::NoBeginning),
        ("--A\r\n", E::NoBeginning),
        (noise.as_str(), E::NoBeginning),
        ("--B", E::Unfinished),
        ("--B\r\n", E::Unfinished),
        ("--Bx", E::AfterBoundary),
        ("--B-x", E::AfterBoundary),
        ("--B\rx", E::AfterBoundary),
        ("--B\r\nno colon\r\n\r\n", E::Header),
        (head, E::Unfinished),
        (many.as_str(), E::TooManyParts(16)),
        (large.as_str(), E::HeadTooLarge(16 << 10)),
        (endless.as_str(), E::HeadTooLarge(16 << 10)),
    ] {
        let begin = &body[..body.len().min(30)];
        assert_eq!(read(body.as_bytes(), &[]), Err(error.clone()), "{begin}");
        let single: Vec<_> = (1..body.len()).collect();
        assert_eq!(read(body.as_bytes(), &single), Err(error), "{begin} byte by byte");
    }
    for boundary in ["", "a\r\n", "ends in blank ", &"x".repeat(71)] {
        assert_eq!(Multipart::new(boundary, Limits::default()).unwrap_err(), E::Boundary);
    }
}
