//! The plain subset of VCDIFF (RFC 3284): one window, no secondary compression.

/// What turns `base` into `target`: their common beginning and end are copied, the rest added.
pub(crate) fn delta(base: &[u8], target: &[u8]) -> Vec<u8> {
    let same =
        |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut base.iter().zip(target));
    let limit = base.len().min(target.len()) - head;
    let tail = same(&mut base.iter().rev().zip(target.iter().rev()).take(limit));
    let added = &target[head..target.len() - tail];

    let (mut instructions, mut addresses) = (Vec::new(), Vec::new());
    let mut copy = |from: usize, length: usize, instructions: &mut Vec<u8>| {
        if length > 0 {
            // 19: COPY from an address in the base, its size follows.
            instructions.push(19);
            number(length, instructions);
            number(from, &mut addresses);
        }
    };
    copy(0, head, &mut instructions);
    if !added.is_empty() {
        // 1: ADD, its size follows.
        instructions.push(1);
        number(added.len(), &mut instructions);
    }
    copy(base.len() - tail, tail, &mut instructions);

    let mut window = Vec::new();
    number(target.len(), &mut window);
    window.push(0);
    for section in [added.len(), instructions.len(), addresses.len()] {
        number(section, &mut window);
    }
    window.extend_from_slice(added);
    window.extend_from_slice(&instructions);
    window.extend_from_slice(&addresses);

    // Magic, no options; a window with a source segment: the whole base.
    let mut delta = vec![0xd6, 0xc3, 0xc4, 0, 0, 1];
    number(base.len(), &mut delta);
    number(0, &mut delta);
    number(window.len(), &mut delta);
    delta.extend(window);
    delta
}

/// Seven bits a byte, the highest first.
fn number(value: usize, to: &mut Vec<u8>) {
    let mut digits = vec![u8::try_from(value & 0x7f).unwrap()];
    let mut rest = value >> 7;
    while rest > 0 {
        digits.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    to.extend(digits.iter().rev());
}
