//! Names for instances whose makers had none.

use uuid::Uuid;

const FIRST: [&str; 32] = [
    "able", "bold", "brave", "bright", "calm", "clear", "clever", "eager", "fair", "fast", "fine",
    "fond", "fresh", "gentle", "glad", "good", "grand", "great", "happy", "keen", "kind", "light",
    "live", "noble", "proud", "quick", "quiet", "ready", "sharp", "smart", "steady", "wise",
];
const SECOND: [&str; 32] = [
    "ant", "bear", "bee", "boar", "cat", "crab", "crane", "crow", "deer", "dove", "duck", "eagle",
    "finch", "fox", "goat", "hare", "hawk", "heron", "horse", "lark", "lion", "lynx", "mole",
    "moth", "mouse", "newt", "otter", "owl", "seal", "swan", "toad", "wren",
];

/// Two words; with a number when `attempt` says that the short form was taken.
pub(super) fn invent(attempt: usize) -> String {
    let random = Uuid::new_v4().into_bytes();
    let word = |words: &[&'static str; 32], byte: u8| words[usize::from(byte % 32)];
    let (first, second) = (word(&FIRST, random[0]), word(&SECOND, random[1]));
    if attempt < 8 {
        format!("{first}-{second}")
    } else {
        format!("{first}-{second}-{:02x}{:02x}", random[2], random[3])
    }
}

#[cfg(test)]
mod tests {
    use lxd_proto::instance::InstanceName;

    use super::*;

    #[test]
    fn what_is_invented_is_a_name() {
        for attempt in 0..100 {
            assert!(invent(attempt).parse::<InstanceName>().is_ok());
        }
    }
}
