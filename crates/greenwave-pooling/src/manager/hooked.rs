//! Functions that run when connections are established and checked.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::Manager;
use crate::error::BoxError;

/// A function that prepares or examines a connection. If it fails, the connection is closed.
pub type Hook<C> = Arc<
    dyn for<'a> Fn(&'a mut C) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>
        + Send
        + Sync,
>;

/// A manager that calls functions of the user after it connects, and before and after it checks.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use greenwave_pooling::{HookedManager, Pool, PoolOptions, Tcp};
/// use tokio::{io::AsyncWriteExt, net::{TcpListener, TcpStream}};
///
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?.to_string();
/// // Names the client to the server, once for each connection.
/// let manager = HookedManager::new(Tcp::new(address)).after_connect(|stream: &mut TcpStream| {
///     Box::pin(async move { Ok(stream.write_all(b"HELLO tests\n").await?) })
/// });
/// let pool = Pool::new(manager, PoolOptions { size_min: 0, ..PoolOptions::default() });
/// let stream = pool.get().await?;
/// # drop(stream);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// # }).unwrap();
/// ```
pub struct HookedManager<M: Manager> {
    manager: M,
    after_connect: Option<Hook<M::Connection>>,
    before_check: Option<Hook<M::Connection>>,
    after_check: Option<Hook<M::Connection>>,
}

impl<M: Manager> HookedManager<M> {
    /// Wraps a manager, without functions.
    pub fn new(manager: M) -> Self {
        Self { manager, after_connect: None, before_check: None, after_check: None }
    }

    /// Calls `hook` with every new connection.
    #[must_use]
    pub fn after_connect<F>(self, hook: F) -> Self
    where
        F: for<'a> Fn(
                &'a mut M::Connection,
            ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
    {
        Self { after_connect: Some(Arc::new(hook)), ..self }
    }

    /// Calls `hook` with every connection that is about to be checked.
    #[must_use]
    pub fn before_check<F>(self, hook: F) -> Self
    where
        F: for<'a> Fn(
                &'a mut M::Connection,
            ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
    {
        Self { before_check: Some(Arc::new(hook)), ..self }
    }

    /// Calls `hook` with every connection that has passed a check.
    #[must_use]
    pub fn after_check<F>(self, hook: F) -> Self
    where
        F: for<'a> Fn(
                &'a mut M::Connection,
            ) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
    {
        Self { after_check: Some(Arc::new(hook)), ..self }
    }

    /// Returns the wrapped manager.
    pub fn inner(&self) -> &M {
        &self.manager
    }
}

/// The error of a [`HookedManager`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError<E: std::error::Error + 'static> {
    /// The wrapped manager failed.
    #[error(transparent)]
    Manager(E),
    /// A function failed.
    #[error("the hook `{hook}` refused the connection")]
    Hook {
        /// Name of the method that set the function.
        hook: &'static str,
        /// The function's error.
        source: BoxError,
    },
}

async fn call<C, E: std::error::Error + 'static>(
    hook: Option<&Hook<C>>,
    name: &'static str,
    connection: &mut C,
) -> Result<(), HookError<E>> {
    let Some(hook) = hook else { return Ok(()) };
    hook(connection).await.map_err(|source| HookError::Hook { hook: name, source })
}

#[async_trait]
impl<M: Manager> Manager for HookedManager<M> {
    type Connection = M::Connection;
    type Error = HookError<M::Error>;

    async fn connect(&self) -> Result<M::Connection, Self::Error> {
        let mut connection = self.manager.connect().await.map_err(HookError::Manager)?;
        call(self.after_connect.as_ref(), "after_connect", &mut connection).await?;
        Ok(connection)
    }

    async fn check(&self, connection: &mut M::Connection) -> Result<(), Self::Error> {
        call(self.before_check.as_ref(), "before_check", connection).await?;
        self.manager.check(connection).await.map_err(HookError::Manager)?;
        call(self.after_check.as_ref(), "after_check", connection).await
    }

    fn is_broken(&self, connection: &mut M::Connection) -> bool {
        self.manager.is_broken(connection)
    }
}

impl<M: Manager> fmt::Debug for HookedManager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedManager").field("manager", &self.manager).finish_non_exhaustive()
    }
}
