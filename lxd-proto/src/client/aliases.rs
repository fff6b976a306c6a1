//! Aliases: list, look, create, move, rename, delete.

use reqwest::Method;

use crate::alias::{AliasEntry, AliasPost, AliasPut, AliasesPost};
use crate::client::LxdClient;
use crate::client::server::Tagged;
use crate::client::transport::Request;
use crate::remote::Result;
use crate::routes;

impl LxdClient {
    /// All aliases.
    pub async fn list_aliases(&self) -> Result<Vec<AliasEntry>> {
        let request = Request::list(routes::ALIASES.url(&[]));
        let aliases: Option<Vec<AliasEntry>> = self.transport.ask(request).await?.parse()?;
        Ok(aliases.unwrap_or_default())
    }

    /// The alias with this name.
    pub async fn get_alias(&self, name: &str) -> Result<Tagged<AliasEntry>> {
        let reply = self.transport.ask(Request::get(routes::ALIAS.url(&[name]))).await?;
        Ok(Tagged { value: reply.parse()?, etag: reply.etag })
    }

    /// Creates an alias; `body.target` is the beginning of a fingerprint.
    pub async fn create_alias(&self, body: &AliasesPost) -> Result<()> {
        let request = Request::new(Method::POST, routes::ALIASES.url(&[]));
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Lets an alias stand for another image, or describes it anew, in one step.
    pub async fn put_alias(&self, name: &str, body: &AliasPut, etag: Option<&str>) -> Result<()> {
        let request = Request::new(Method::PUT, routes::ALIAS.url(&[name])).if_match(etag);
        self.transport.tell(request, body).await?;
        Ok(())
    }

    /// Renames an alias.
    pub async fn rename_alias(&self, name: &str, new: &str) -> Result<()> {
        let request = Request::new(Method::POST, routes::ALIAS.url(&[name]));
        self.transport.tell(request, &AliasPost { name: new.to_owned() }).await?;
        Ok(())
    }

    /// Deletes an alias; its image stays.
    pub async fn delete_alias(&self, name: &str) -> Result<()> {
        self.transport.ask(Request::new(Method::DELETE, routes::ALIAS.url(&[name]))).await?;
        Ok(())
    }
}
