//! From a description of a server to something that speaks with it.

use std::sync::Arc;

use lxd_proto::client::LxdClient;
use lxd_proto::net::Access;
use lxd_proto::remote::{Error, Protocol, Remote, RemoteSpec, Result};

use crate::remote::SimplestreamsRemote;

/// The server that `spec` describes. Opens no connection.
///
/// # Errors
/// When the address is none for this protocol, or a certificate or a keyring cannot be used.
pub fn connect(spec: RemoteSpec, access: &Access) -> Result<Arc<dyn Remote>> {
    match spec.protocol {
        Protocol::Lxd if spec.keyring.is_some() => Err(Error::Unsupported(
            "what an LXD server says is not signed: a keyring is for simplestreams servers".into(),
        )),
        Protocol::Lxd => Ok(Arc::new(LxdClient::new(spec, access)?)),
        Protocol::Simplestreams => Ok(Arc::new(SimplestreamsRemote::new(spec, access)?)),
    }
}
