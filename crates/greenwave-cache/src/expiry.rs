//! Expiry that depends on the entry, and on what happens to it.

use std::time::Duration;

/// Decides how long an entry lives.
///
/// Each method returns the time from now until the entry expires, rounded up to a tenth of a
/// second, or `None` if it does not expire. Zero expires it at once. The time to idle, if the cache
/// or the entry has one, applies as well.
///
/// The methods run under a lock: they must be short, and must not insert or remove entries. If one
/// panics, the panic is logged, and the entry keeps the life that it has; a new one does not
/// expire.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use greenwave_cache::{Cache, CacheOptions, Expiry};
///
/// struct Session {
///     user: String,
///     is_guest: bool,
/// }
///
/// /// Guests are forgotten after a minute, members an hour after their last request.
/// struct Sessions;
///
/// impl Expiry<u64, Arc<Session>> for Sessions {
///     fn after_create(&self, _: &u64, session: &Arc<Session>) -> Option<Duration> {
///         Some(Duration::from_secs(if session.is_guest { 60 } else { 3600 }))
///     }
///
///     fn after_read(&self, _: &u64, session: &Arc<Session>, left: Option<Duration>) -> Option<Duration> {
///         if session.is_guest { left } else { Some(Duration::from_secs(3600)) }
///     }
/// }
///
/// let options = CacheOptions { expiry: Some(Arc::new(Sessions)), ..CacheOptions::default() };
/// let cache: Cache<u64, Arc<Session>> = Cache::new(options)?;
/// cache.insert(7, Arc::new(Session { user: "ada".into(), is_guest: false }));
/// assert_eq!(cache.get(&7).unwrap().user, "ada");
/// # Ok::<(), greenwave_cache::Error>(())
/// ```
pub trait Expiry<K, V>: Send + Sync {
    /// Returns the life of a new entry. The default is `None`.
    fn after_create(&self, key: &K, value: &V) -> Option<Duration> {
        let _ = (key, value);
        None
    }

    /// Returns the life of an entry that replaces another one of the same key, which had `left` to
    /// live. The default is that of a new entry.
    fn after_update(&self, key: &K, value: &V, left: Option<Duration>) -> Option<Duration> {
        let _ = left;
        self.after_create(key, value)
    }

    /// Returns the life of an entry that was read and had `left` to live. The default is `left`.
    fn after_read(&self, key: &K, value: &V, left: Option<Duration>) -> Option<Duration> {
        let _ = (key, value);
        left
    }
}
