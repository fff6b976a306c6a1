//! `/` and `/1.0`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use lxd_proto::arch::Architecture;
use lxd_proto::extensions;
use lxd_proto::server::{
    API_VERSION, Environment, SPOKEN_VERSION, Server, ServerPut, StorageDriver,
};
use serde_json::Value;

use super::Daemon;
use super::extract;
use super::reply::Reply;
use crate::app::{App, Caller};
use crate::error::Result;
use crate::service::settings;

pub(super) async fn root() -> Reply {
    Reply::json(&[lxd_proto::routes::API.template()])
}

pub(super) async fn get(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Reply {
    let mut server = Server {
        config: None,
        api_extensions: extensions::SERVED.iter().map(|&name| name.to_owned()).collect(),
        api_status: "stable".into(),
        api_version: API_VERSION.into(),
        auth: "untrusted".into(),
        public: false,
        auth_methods: vec!["tls".into()],
        environment: None,
    };
    if caller.must_be_known().is_err() {
        return Reply::json(&server);
    }
    server.auth = "trusted".into();
    server.environment = Some(environment(&app));
    if !caller.is_trusted() {
        // Nothing to see; without a map, `lxc config set` crashes before it is refused.
        server.config = Some(BTreeMap::new());
        return Reply::json(&server);
    }
    let mut config = settings::shown(&app);
    // Other clients than LXD's decode values as strings only.
    if !is_lxd(&headers) {
        for value in config.values_mut().filter(|value| value.is_boolean()) {
            *value = Value::from(value.to_string());
        }
    }
    server.config = Some(config);
    Reply::tagged(&server, settings::etag(&app))
}

fn is_lxd(headers: &HeaderMap) -> bool {
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with("LXD "))
}

fn environment(app: &App) -> Environment {
    let uname = rustix::system::uname();
    let identity = app.identity.get();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let native = Architecture::host();
    let architectures = native.map_or_else(Vec::new, |native| {
        std::iter::once(native)
            .chain(native.personalities().iter().copied())
            .map(|architecture| architecture.to_string())
            .collect()
    });
    let (os_name, os_version) = os_release();
    let storage = StorageDriver { name: "dir".into(), version: "1".into(), remote: false };
    Environment {
        addresses: app.network.addresses(),
        architectures,
        certificate: identity.certificate.clone(),
        certificate_fingerprint: identity.fingerprint().to_string(),
        driver: "lxc".into(),
        driver_version: SPOKEN_VERSION.into(),
        firewall: String::new(),
        kernel: text(uname.sysname()),
        kernel_architecture: text(uname.machine()),
        kernel_features: None,
        kernel_version: text(uname.release()),
        lxc_features: None,
        os_name,
        os_version,
        project: lxd_proto::project::DEFAULT.into(),
        server: "lxd".into(),
        server_clustered: false,
        server_event_mode: "full-mesh".into(),
        server_name: identity.name.clone(),
        server_pid: std::process::id(),
        server_version: SPOKEN_VERSION.into(),
        storage: storage.name.clone(),
        storage_version: storage.version.clone(),
        storage_supported_drivers: vec![storage],
    }
}

/// Name and version of the distribution, empty where they cannot be read.
fn os_release() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    (value("NAME"), value("VERSION_ID"))
}

pub(super) async fn put(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    update(&app, &caller, &headers, body, true).await.into()
}

pub(super) async fn patch(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    update(&app, &caller, &headers, body, false).await.into()
}

async fn update(
    app: &Arc<App>,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    replace: bool,
) -> Result<()> {
    let put: ServerPut = extract::json(body).await?;
    let values = put.config.unwrap_or_default();
    settings::update(app, caller, extract::etag(headers), values, replace).await
}
