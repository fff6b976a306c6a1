//! Ids of owners, moved from one range to another: also those inside of extended attributes.

/// Who owns what has an owner outside of the range: nobody.
const NOBODY: u32 = 65534;

/// How ids move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift(pub(super) i64);

impl Shift {
    /// Where an id goes; nobody when there is no such place.
    pub(super) fn id(self, id: u32) -> u32 {
        self.moved(id).unwrap_or(NOBODY)
    }

    /// The last id means "no change" to the kernel and "nobody in particular" to access lists.
    fn moved(self, id: u32) -> Option<u32> {
        u32::try_from(i64::from(id).checked_add(self.0)?).ok().filter(|&id| id != u32::MAX)
    }

    /// An attribute's value with the ids in it moved.
    pub(super) fn xattr(self, name: &[u8], value: &[u8]) -> Vec<u8> {
        match name {
            _ if self.0 == 0 => value.to_vec(),
            b"system.posix_acl_access" | b"system.posix_acl_default" => self.acl(value),
            b"security.capability" => self.capability(value),
            _ => value.to_vec(),
        }
    }

    /// A version, then entries of tag, permissions and id.
    fn acl(self, value: &[u8]) -> Vec<u8> {
        const VERSION: usize = 4;
        const USER: u16 = 2;
        const GROUP: u16 = 8;
        let mut moved = value.to_vec();
        for entry in moved.get_mut(VERSION..).unwrap_or_default().chunks_exact_mut(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            if matches!(tag, USER | GROUP) {
                let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
                entry[4..].copy_from_slice(&self.id(id).to_le_bytes());
            }
        }
        moved
    }

    /// Capabilities of a program: version 3 says in its last field whose root they are for,
    /// version 2 is for the one of the machine.
    fn capability(self, value: &[u8]) -> Vec<u8> {
        const V2: usize = 20;
        const V3: usize = 24;
        let root = match value.len() {
            V2 if value[3] == 2 => 0,
            V3 if value[3] == 3 => u32::from_le_bytes([value[20], value[21], value[22], value[23]]),
            _ => return value.to_vec(),
        };
        let mut moved = value[..V2].to_vec();
        match self.moved(root) {
            Some(0) => moved[3] = 2,
            Some(root) => {
                moved[3] = 3;
                moved.extend_from_slice(&root.to_le_bytes());
            }
            None => return value.to_vec(),
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_move_and_have_an_end() {
        assert_eq!(Shift(-1_000_000).id(1_000_033), 33);
        assert_eq!(Shift(1_000_000).id(33), 1_000_033);
        assert_eq!(Shift(-1_000_000).id(0), NOBODY);
        assert_eq!(Shift(1_000_000).id(u32::MAX - 10), NOBODY);
        assert_eq!(Shift(i64::MAX).id(1), NOBODY);
    }

    #[test]
    fn capabilities_change_their_version() {
        let v2 = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        let mut v3 = v2.clone();
        v3[3] = 3;
        v3.extend_from_slice(&1_000_000_u32.to_le_bytes());
        let name = b"security.capability";
        assert_eq!(Shift(1_000_000).xattr(name, &v2), v3);
        assert_eq!(Shift(-1_000_000).xattr(name, &v3), v2);
        assert_eq!(Shift(-1_000_000).xattr(name, &v2), v2);
        assert_eq!(Shift(0).xattr(name, &v3), v3);
        for odd in [&b""[..], b"\0\0\0\x02", &v3[..21]] {
            assert_eq!(Shift(5).xattr(name, odd), odd);
        }
    }

    #[test]
    fn access_lists_move_their_users() {
        let mut acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0".to_vec();
        let (mut at_zero, mut at_base) = (acl.clone(), acl.split_off(0));
        at_zero.extend_from_slice(&33_u32.to_le_bytes());
        at_base.extend_from_slice(&1_000_033_u32.to_le_bytes());
        let name = b"system.posix_acl_default";
        assert_eq!(Shift(1_000_000).xattr(name, &at_zero), at_base);
        assert_eq!(Shift(-1_000_000).xattr(name, &at_base), at_zero);
        assert_eq!(Shift(1).xattr(b"user.other", &at_zero), at_zero);
    }
}
