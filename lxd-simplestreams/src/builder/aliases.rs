//! Which image a name leads to: at a server that has said so it is that server's word, not what the
//! image says about its system.

use std::collections::BTreeMap;

use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;

use super::scan::Version;
use super::state::State;

/// Takes names from images whose metadata makes them, but which lead to another image at the server
/// that this one is from. Clients choose among architectures by themselves.
pub(super) fn settle(versions: &mut [Version], state: &State) {
    let mut places: BTreeMap<Fingerprint, (usize, Architecture)> = BTreeMap::new();
    for (at, version) in versions.iter().enumerate() {
        let images = version.images.iter();
        places.extend(images.map(|image| (image.fingerprint, (at, image.architecture))));
    }
    // An image that did not come, or has left the tree, keeps no name from the others.
    let claims = state.aliases.iter().filter_map(|(name, borrowed)| {
        places.get(&borrowed.fingerprint).map(|place| (name.as_str(), *place))
    });
    let claims: BTreeMap<&str, (usize, Architecture)> = claims.collect();
    for (at, version) in versions.iter_mut().enumerate() {
        for image in &mut version.images {
            let own = image.architecture;
            image.aliases.retain(|name| {
                claims
                    .get(name.as_str())
                    .is_none_or(|&(owner, architecture)| owner == at || architecture != own)
            });
        }
    }
}
