//! The server object and its configuration.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::client::LxdClient;
use crate::client::transport::{RawReply, Request};
use crate::remote::{Error, Result};
use crate::routes;
use crate::server::{Server, ServerPut};

/// A value with the tag of the version that was read.
#[derive(Debug, Clone)]
pub struct Tagged<T> {
    /// The value.
    pub value: T,
    /// For `If-Match`; servers give none to strangers.
    pub etag: Option<String>,
}

/// What is needed of a project: servers differ in the rest.
#[derive(Deserialize)]
struct Named {
    name: String,
}

impl LxdClient {
    /// What the server says about itself.
    pub async fn server(&self) -> Result<Tagged<Server>> {
        let reply = self.transport.ask(Request::get(routes::API.url(&[]))).await?;
        Ok(Tagged { value: reply.parse()?, etag: reply.etag })
    }

    /// Replaces the whole configuration: a key that is absent is unset.
    ///
    /// # Errors
    /// One with [`Error::is_changed_meanwhile`] when `etag` is not current any more.
    pub async fn put_config(
        &self,
        config: BTreeMap<String, Value>,
        etag: Option<&str>,
    ) -> Result<()> {
        self.send_config(Method::PUT, config, etag).await
    }

    /// Sets some keys and leaves the others; an empty value unsets its key.
    pub async fn patch_config(
        &self,
        config: BTreeMap<String, Value>,
        etag: Option<&str>,
    ) -> Result<()> {
        self.send_config(Method::PATCH, config, etag).await
    }

    /// The names of the projects that we may see.
    pub async fn list_projects(&self) -> Result<Vec<String>> {
        let request = Request::list(routes::PROJECTS.url(&[]));
        let projects: Option<Vec<Named>> = self.transport.ask(request).await?.parse()?;
        Ok(projects.unwrap_or_default().into_iter().map(|project| project.name).collect())
    }

    async fn send_config(
        &self,
        method: Method,
        config: BTreeMap<String, Value>,
        etag: Option<&str>,
    ) -> Result<()> {
        let request = Request::new(method, routes::API.url(&[])).if_match(etag);
        self.transport.tell(request, &ServerPut { config: Some(config) }).await?;
        Ok(())
    }

    /// Any request, with the reply left as it is; `body` is JSON.
    ///
    /// # Errors
    /// Only when there is no reply: an error status is a reply.
    pub async fn query(&self, method: &str, path: &str, body: Option<String>) -> Result<RawReply> {
        let method: Method = method
            .to_ascii_uppercase()
            .parse()
            .map_err(|_| Error::Unsupported(format!("\"{method}\" is no HTTP method")))?;
        self.transport.raw(Request::new(method, path), body).await
    }
}
