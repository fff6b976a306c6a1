//! From a description of a server to something that speaks with it.

use std::sync::Arc;

use lxd_proto::client::LxdClient;
use lxd_proto::remote::{Error, Protocol, Remote, RemoteSpec, Result};

/// The server that `spec` describes. Opens no connection.
///
/// # Errors
/// [`Error::Unsupported`] for what this version does not speak yet.
pub fn connect(spec: RemoteSpec) -> Result<Arc<dyn Remote>> {
    match spec.protocol {
        Protocol::Lxd => Ok(Arc::new(LxdClient::new(spec)?)),
        Protocol::Simplestreams => Err(Error::Unsupported(format!(
            "{}: simplestreams servers cannot be read yet; they come with the next release",
            spec.address
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_spoken_yet_says_so() {
        let spec = |address: &str, protocol| RemoteSpec {
            address: address.into(),
            protocol,
            ..RemoteSpec::default()
        };
        connect(spec("unix:///run/x.socket", Protocol::Lxd)).unwrap();
        for (address, protocol) in
            [("https://a", Protocol::Simplestreams), ("https://a:8443", Protocol::Lxd)]
        {
            let error = connect(spec(address, protocol)).unwrap_err();
            assert!(error.to_string().contains("next release"), "{error}");
        }
    }
}
