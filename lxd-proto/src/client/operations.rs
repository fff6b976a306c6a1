//! Operations: look, wait, cancel.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;

use crate::client::LxdClient;
use crate::client::transport::Request;
use crate::operation::Operation;
use crate::remote::{Error, Result, Secret};
use crate::routes::{self, query};
use crate::status::OperationStatus;

/// How long one request waits for the end of an operation.
const WAIT_SECONDS: u64 = 30;

impl LxdClient {
    /// All operations of the server, grouped by status in the order of the statuses' names.
    pub async fn list_operations(&self) -> Result<Vec<Operation>> {
        let request = Request::list(routes::OPERATIONS.url(&[]));
        let by_status: Option<BTreeMap<String, Vec<Operation>>> =
            self.transport.ask(request).await?.parse()?;
        Ok(by_status.unwrap_or_default().into_values().flatten().collect())
    }

    /// The operation with this id.
    pub async fn get_operation(&self, id: &str) -> Result<Operation> {
        self.transport.ask(Request::get(routes::OPERATION.url(&[id]))).await?.parse()
    }

    /// Asks an operation to stop.
    pub async fn cancel_operation(&self, id: &str) -> Result<()> {
        self.transport.ask(Request::new(Method::DELETE, routes::OPERATION.url(&[id]))).await?;
        Ok(())
    }

    /// Waits at most `seconds` and returns the operation as it then stands, final or not.
    /// Failure of the operation is not an error here.
    pub async fn wait_operation(&self, id: &str, seconds: u64) -> Result<Operation> {
        let request = Request::get(routes::OPERATION_WAIT.url(&[id]))
            .query(query::TIMEOUT, seconds.to_string());
        let patience = self.transport.idle() + Duration::from_secs(seconds);
        match timeout(patience, self.transport.ask(request)).await {
            Ok(reply) => reply?.parse(),
            Err(_) => Err(self.transport.silent()),
        }
    }

    /// Waits for the end of an operation of a server that need not trust us: the secret is in the
    /// answer that created it. Failure of the operation is not an error here.
    pub async fn wait_with_secret(&self, id: &str, secret: Option<&Secret>) -> Result<Operation> {
        loop {
            let mut request = Request::get(routes::OPERATION_WAIT.url(&[id]))
                .query(query::TIMEOUT, WAIT_SECONDS.to_string());
            if let Some(secret) = secret {
                request = request.query(query::SECRET, secret.expose());
            }
            let patience = self.transport.idle() + Duration::from_secs(WAIT_SECONDS);
            let operation: Operation = match timeout(patience, self.transport.ask(request)).await {
                Ok(reply) => reply?.parse()?,
                Err(_) => return Err(self.transport.silent()),
            };
            if operation.status.is_final() {
                return Ok(operation);
            }
        }
    }

    /// Waits for the end of an operation; `seen` is told every second how it stands.
    ///
    /// # Errors
    /// [`Error::Operation`] when it did not succeed.
    pub async fn finish(
        &self,
        operation: Operation,
        mut seen: impl FnMut(&Operation) + Send,
    ) -> Result<Operation> {
        let mut operation = operation;
        while !operation.status.is_final() {
            seen(&operation);
            operation = self.wait_operation(&operation.id, 1).await?;
        }
        if operation.status == OperationStatus::Success {
            Ok(operation)
        } else {
            Err(Error::Operation(Box::new(operation)))
        }
    }
}
