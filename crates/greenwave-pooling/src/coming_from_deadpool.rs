//! The calls of deadpool and bb8, and their counterparts in this crate.
//!
//! With the features `deadpool` and `bb8`, the managers of databases stay as they are. This is a
//! pool with a manager of `deadpool-postgres`, for example:
//!
//! ```text
//! // deadpool: let pool = deadpool_postgres::Pool::builder(manager).max_size(16).build()?;
//! let options = PoolOptions { size_max: 16, ..PoolOptions::default() };
//! let pool = Pool::new(DeadpoolManager::new(manager), options);
//! let client = pool.get().await?;
//! let rows = client.query("SELECT 1", &[]).await?;
//! ```
//!
//! | deadpool | here |
//! | --- | --- |
//! | `Pool::builder(manager).max_size(n).build()` | [`Pool::new`] with `DeadpoolManager` and [`PoolOptions::size_max`]; the first call connects, and [`Pool::warm_up`] earlier |
//! | `Timeouts { wait, create, recycle }` | [`PoolOptions::checkout_timeout`] for all of it, [`PoolOptions::connect_timeout`] for a connect and a check |
//! | `pool.get()`, `timeout_get(&timeouts)` | [`Pool::get`], [`Pool::get_timeout`] |
//! | `Object::take(object)` | [`Lease::take`] |
//! | `pool.resize(n)`, `pool.retain(f)`, `pool.close()` | [`Pool::resize`], [`Pool::retain`], [`Pool::close`], which waits for lent connections |
//! | `post_create`, `pre_recycle`, `post_recycle` | [`HookedManager`] |
//! | `pool.status()` | [`Pool::stats`] |
//! | `Object::metrics(&object)` | [`Lease::age`], [`Lease::uses`] |
//! | `QueueMode::Lifo` | always: the most recently used connection is lent first, so that the others become idle |
//! | `PoolError<E>` | [`Error`], which hides the manager's error type; [`Pool::run`] unites it with errors of the work |
//!
//! | bb8 | here |
//! | --- | --- |
//! | `Pool::builder().max_size(n).min_idle(m).build(manager)` | [`Pool::new`] with `Bb8Manager`, [`PoolOptions::size_max`] and [`PoolOptions::size_min`], which counts lent connections, too |
//! | `test_on_check_out(true)` | [`PoolOptions::check_after`] of zero; by default connections are checked after a second of idleness |
//! | `max_lifetime`, `idle_timeout`, `connection_timeout` | [`PoolOptions::max_lifetime`], [`PoolOptions::idle_timeout`], [`PoolOptions::checkout_timeout`] |
//! | `connection_customizer` | [`HookedManager::after_connect`] |
//! | `error_sink` | [`Pool::with_observer`] |
//! | `pool.dedicated_connection()` | `pool.manager().connect()` |
//!
//! These pools recycle or test a connection at each checkout. Here a connection is lent without a
//! check if it was idle for a short time, or was handed over by its previous user to one that
//! waits. Settings that a user leaves behind, such as those of a session, are therefore not reset
//! by `recycle`, as `RecyclingMethod::Clean` would: users must reset them, or discard the
//! connection.
//!
//! [`Pool::new`]: crate::Pool::new
//! [`Pool::with_observer`]: crate::Pool::with_observer
//! [`Pool::warm_up`]: crate::Pool::warm_up
//! [`Pool::get`]: crate::Pool::get
//! [`Pool::get_timeout`]: crate::Pool::get_timeout
//! [`Pool::run`]: crate::Pool::run
//! [`Pool::resize`]: crate::Pool::resize
//! [`Pool::retain`]: crate::Pool::retain
//! [`Pool::close`]: crate::Pool::close
//! [`Pool::stats`]: crate::Pool::stats
//! [`Lease::take`]: crate::Lease::take
//! [`Lease::age`]: crate::Lease::age
//! [`Lease::uses`]: crate::Lease::uses
//! [`Error`]: crate::Error
//! [`HookedManager`]: crate::HookedManager
//! [`HookedManager::after_connect`]: crate::HookedManager::after_connect
//! [`PoolOptions::size_max`]: crate::PoolOptions::size_max
//! [`PoolOptions::size_min`]: crate::PoolOptions::size_min
//! [`PoolOptions::checkout_timeout`]: crate::PoolOptions::checkout_timeout
//! [`PoolOptions::connect_timeout`]: crate::PoolOptions::connect_timeout
//! [`PoolOptions::check_after`]: crate::PoolOptions::check_after
//! [`PoolOptions::max_lifetime`]: crate::PoolOptions::max_lifetime
//! [`PoolOptions::idle_timeout`]: crate::PoolOptions::idle_timeout
