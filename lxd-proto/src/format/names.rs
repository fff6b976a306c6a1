//! The names in an archive so far, in bounded memory.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// What a name was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File,
    /// A symbolic link, device, fifo or socket.
    Other,
}

/// A set of paths, each with what it is.
///
/// It holds 62 bits of a keyed hash per path and not the path, so that a million entries take
/// some 12 MiB (half as much again while it grows). Two paths share a hash with a chance of
/// 10⁻⁷ in an archive of a million entries; the archive would be refused for a duplicate. As the
/// key is random, nobody can make that happen.
pub(super) struct Names {
    hasher: RandomState,
    /// Open addressing; 0 is free, else hash with the node's tag in its lowest two bits.
    slots: Vec<u64>,
    len: usize,
}

const TAG_BITS: u64 = 3;

impl Names {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), slots: vec![0; 64], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Node> {
        let slot = self.slots[self.find(self.hash(path))];
        match slot & TAG_BITS {
            1 => Some(Node::Directory),
            2 => Some(Node::File),
            3 => Some(Node::Other),
            _ => None,
        }
    }

    /// Adds a path that is not in the set.
    pub(super) fn insert(&mut self, path: &[u8], node: Node) {
        // At most six of seven slots are taken, or searches would get long.
        if self.len >= self.slots.len() / 7 * 6 {
            self.grow();
        }
        let tag = match node {
            Node::Directory => 1,
            Node::File => 2,
            Node::Other => 3,
        };
        let hash = self.hash(path);
        let at = self.find(hash);
        if self.slots[at] == 0 {
            self.len += 1;
        }
        self.slots[at] = hash | tag;
    }

    fn hash(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path) & !TAG_BITS
    }

    /// The slot of a hash, or the free one where it belongs.
    fn find(&self, hash: u64) -> usize {
        let scaled = (u128::from(hash) * self.slots.len() as u128) >> 64;
        let mut at = usize::try_from(scaled).unwrap_or_default();
        while self.slots[at] != 0 && self.slots[at] & !TAG_BITS != hash {
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
        at
    }

    fn grow(&mut self) {
        let larger = self.slots.len() / 2 * 3;
        let old = std::mem::replace(&mut self.slots, vec![0; larger]);
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let at = self.find(slot & !TAG_BITS);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_told_apart() {
        let mut names = Names::new();
        let nodes = [Node::Directory, Node::File, Node::Other];
        for i in 0..50_000_usize {
            let path = format!("rootfs/some/path/{i}");
            assert_eq!(names.get(path.as_bytes()), None);
            names.insert(path.as_bytes(), nodes[i % 3]);
        }
        assert_eq!(names.len(), 50_000);
        assert!(names.slots.len() < 2 * 50_000, "{}", names.slots.len());
        for i in 0..50_000_usize {
            let path = format!("rootfs/some/path/{i}");
            assert_eq!(names.get(path.as_bytes()), Some(nodes[i % 3]));
        }
    }
}
