//! Instances and their snapshots: list, look, create, change, delete; state, console log, logs.

use reqwest::Method;

use crate::client::LxdClient;
use crate::client::server::Tagged;
use crate::client::transport::Request;
use crate::instance::{
    Instance, InstanceFull, InstancePost, InstancePut, InstanceState, InstancesPost, Snapshot,
    SnapshotPost, SnapshotsPost, StatePut,
};
use crate::operation::Operation;
use crate::remote::Result;
use crate::routes::{self, query};

impl LxdClient {
    /// All instances, without their state.
    pub async fn list_instances(&self) -> Result<Vec<Instance>> {
        let request = Request::get(routes::INSTANCES.url(&[])).query(query::RECURSION, "1");
        let instances: Option<Vec<Instance>> = self.transport.ask(request).await?.parse()?;
        Ok(instances.unwrap_or_default())
    }

    /// All instances, with state and snapshots.
    pub async fn list_instances_full(&self) -> Result<Vec<InstanceFull>> {
        let request = Request::get(routes::INSTANCES.url(&[])).query(query::RECURSION, "2");
        let instances: Option<Vec<InstanceFull>> = self.transport.ask(request).await?.parse()?;
        Ok(instances.unwrap_or_default())
    }

    /// The instance with this name.
    pub async fn get_instance(&self, name: &str) -> Result<Tagged<Instance>> {
        let reply = self.transport.ask(Request::get(routes::INSTANCE.url(&[name]))).await?;
        Ok(Tagged { value: reply.parse()?, etag: reply.etag })
    }

    /// The same with state and snapshots.
    pub async fn get_instance_full(&self, name: &str) -> Result<InstanceFull> {
        let request = Request::get(routes::INSTANCE.url(&[name])).query(query::RECURSION, "1");
        self.transport.ask(request).await?.parse()
    }

    /// Starts to make an instance; wait for the operation, whose resources name it.
    pub async fn create_instance(&self, body: &InstancesPost) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::INSTANCES.url(&[]));
        self.transport.tell(request, body).await?.operation()
    }

    /// Starts to replace the editable part of an instance, or to restore a snapshot; wait for the
    /// operation.
    ///
    /// # Errors
    /// One with [`crate::remote::Error::is_changed_meanwhile`] when `etag` is not current any more.
    pub async fn put_instance(
        &self,
        name: &str,
        body: &InstancePut,
        etag: Option<&str>,
    ) -> Result<Operation> {
        let request = Request::new(Method::PUT, routes::INSTANCE.url(&[name])).if_match(etag);
        self.transport.tell(request, body).await?.operation()
    }

    /// Starts to rename an instance; wait for the operation.
    pub async fn rename_instance(&self, name: &str, new: &str) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::INSTANCE.url(&[name]));
        let body = InstancePost { name: new.to_owned(), ..InstancePost::default() };
        self.transport.tell(request, &body).await?.operation()
    }

    /// Starts to delete an instance with its snapshots; wait for the operation.
    pub async fn delete_instance(&self, name: &str) -> Result<Operation> {
        let request = Request::new(Method::DELETE, routes::INSTANCE.url(&[name]));
        self.transport.ask(request).await?.operation()
    }

    /// How an instance stands.
    pub async fn instance_state(&self, name: &str) -> Result<InstanceState> {
        self.transport.ask(Request::get(routes::INSTANCE_STATE.url(&[name]))).await?.parse()
    }

    /// Starts to change how an instance stands; wait for the operation.
    pub async fn put_instance_state(&self, name: &str, body: &StatePut) -> Result<Operation> {
        let request = Request::new(Method::PUT, routes::INSTANCE_STATE.url(&[name]));
        self.transport.tell(request, body).await?.operation()
    }

    /// The snapshots of an instance, oldest first.
    pub async fn list_snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        let path = routes::INSTANCE_SNAPSHOTS.url(&[name]);
        let request = Request::get(path).query(query::RECURSION, "1");
        let snapshots: Option<Vec<Snapshot>> = self.transport.ask(request).await?.parse()?;
        Ok(snapshots.unwrap_or_default())
    }

    /// One snapshot.
    pub async fn get_snapshot(&self, name: &str, snapshot: &str) -> Result<Tagged<Snapshot>> {
        let path = routes::INSTANCE_SNAPSHOT.url(&[name, snapshot]);
        let reply = self.transport.ask(Request::get(path)).await?;
        Ok(Tagged { value: reply.parse()?, etag: reply.etag })
    }

    /// Starts to make a snapshot; wait for the operation.
    pub async fn create_snapshot(&self, name: &str, body: &SnapshotsPost) -> Result<Operation> {
        let request = Request::new(Method::POST, routes::INSTANCE_SNAPSHOTS.url(&[name]));
        self.transport.tell(request, body).await?.operation()
    }

    /// Starts to rename a snapshot; wait for the operation.
    pub async fn rename_snapshot(
        &self,
        name: &str,
        snapshot: &str,
        new: &str,
    ) -> Result<Operation> {
        let path = routes::INSTANCE_SNAPSHOT.url(&[name, snapshot]);
        let body = SnapshotPost { name: new.to_owned(), ..SnapshotPost::default() };
        self.transport.tell(Request::new(Method::POST, path), &body).await?.operation()
    }

    /// Starts to delete a snapshot; wait for the operation.
    pub async fn delete_snapshot(&self, name: &str, snapshot: &str) -> Result<Operation> {
        let path = routes::INSTANCE_SNAPSHOT.url(&[name, snapshot]);
        self.transport.ask(Request::new(Method::DELETE, path)).await?.operation()
    }

    /// What an instance has written to its console, at most 256 MiB of it.
    pub async fn console_log(&self, name: &str) -> Result<Vec<u8>> {
        self.bytes(routes::INSTANCE_CONSOLE.url(&[name])).await
    }

    /// Forgets what an instance has written to its console.
    pub async fn clear_console_log(&self, name: &str) -> Result<()> {
        let path = routes::INSTANCE_CONSOLE.url(&[name]);
        self.transport.ask(Request::new(Method::DELETE, path)).await?;
        Ok(())
    }

    /// A log file of an instance, such as `lxc.log`.
    pub async fn instance_log(&self, name: &str, file: &str) -> Result<Vec<u8>> {
        self.bytes(routes::INSTANCE_LOG.url(&[name, file])).await
    }

    /// A body that is no envelope, unless it is an error.
    async fn bytes(&self, path: String) -> Result<Vec<u8>> {
        let reply = self.transport.raw(Request::get(path), None).await?;
        if (200..300).contains(&reply.status) {
            return Ok(reply.body);
        }
        Err(super::files::error_of(reply.status, &reply.body))
    }
}
