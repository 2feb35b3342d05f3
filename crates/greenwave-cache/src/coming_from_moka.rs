//! The calls of moka and quick_cache, and their counterparts in this crate.
//!
//! | moka | here |
//! | --- | --- |
//! | `sync::Cache::new(n)`, `future::Cache::new(n)` | [`Cache::new`] with [`CacheOptions::entries_max`]: one type for threads and tasks |
//! | `builder().max_capacity(n).weigher(f)` | [`CacheOptions::weight_max`] and [`CacheOptions::weigher`], whose weights have 64 bits |
//! | `time_to_live`, `time_to_idle`, `expire_after` | [`CacheOptions::ttl`], [`CacheOptions::tti`], [`CacheOptions::expiry`] |
//! | `eviction_listener(f)` | [`CacheOptions::listener`]; to wait in it, [`removal_channel`] |
//! | `eviction_policy(EvictionPolicy::lru())` | the type parameter: `Cache<K, V, Lru>`, created by [`Cache::with`] |
//! | `get(&key)`, `contains_key(&key)` | [`Cache::get`], [`Cache::contains`] |
//! | `get_with(key, f)` of `sync` | [`Cache::get_or_compute_blocking`] |
//! | `get_with(key, future)`, `try_get_with` | [`Cache::get_or_compute`]: errors are shared with the callers that wait |
//! | `get_with_by_ref`, `try_get_with_by_ref` | [`Cache::get_or_compute_by_ref`] |
//! | `entry(key).or_insert_with(f)` | [`Cache::entry`] and [`CacheEntry::or_insert_with`], or, if `f` takes long, `get_or_compute` |
//! | `entry(key).and_upsert_with(f)` | [`CacheEntry::upsert_with`] |
//! | `entry(key).and_compute_with(f)` | [`CacheEntry::compute`] |
//! | `invalidate(&key)`, `remove(&key)` | [`Cache::remove`] |
//! | `invalidate_all()` | [`Cache::invalidate_all`], which has removed the entries when it returns |
//! | `invalidate_entries_if(f)` | [`Cache::invalidate_if`], likewise; [`Cache::invalidate_tag`] looks at no other entries |
//! | `run_pending_tasks()` | not needed: there are no pending tasks. [`Cache::purge_expired`] drops expired entries early |
//! | a new cache, as the limits are fixed | [`Cache::set_entries_max`], [`Cache::set_weight_max`] |
//! | `entry_count()`, `weighted_size()` | [`Cache::len`], [`CacheStats::weight`], which are exact |
//! | `iter()` | [`Cache::iter`], which returns clones of keys rather than `Arc`s |
//! | a cache of another process | [`Tiered`](crate::Tiered) |
//!
//! | quick_cache | here |
//! | --- | --- |
//! | `get_or_insert_async(&key, future)` | [`Cache::get_or_compute_by_ref`] |
//! | `get_value_or_guard_async(&key)` | [`Cache::get_or_reserve`] |
//! | `Lifecycle::on_evict` | [`CacheOptions::listener`] |
//! | `set_capacity` | [`Cache::set_weight_max`] or [`Cache::set_entries_max`] |
//!
//! This crate has no policies that are chosen at run time, and no functions of [`CacheEntry`] that
//! await. A program of moka, translated:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use greenwave_cache::{Cache, CacheOptions};
//!
//! // moka: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(60)).build()
//! let ttl = Some(Duration::from_secs(60));
//! let users: Cache<String, usize> = Cache::new(CacheOptions { ttl, ..CacheOptions::default() })?;
//!
//! // moka: users.try_get_with("ada".into(), load("ada")).await
//! let load = async |name: &str| Ok::<_, std::io::Error>(name.len());
//! assert_eq!(users.get_or_compute("ada".into(), async || load("ada").await).await.unwrap(), 3);
//!
//! // moka: users.get("ada").await
//! assert_eq!(users.get("ada"), Some(3));
//!
//! // moka: users.entry("ada".into()).and_upsert_with(|entry| ready(entry.map_or(0, |e| e.into_value() + 1))).await
//! assert_eq!(users.entry("ada".into()).upsert_with(|length| length.map_or(0, |length| length + 1)), 4);
//!
//! // moka: users.invalidate("ada").await
//! assert_eq!(users.remove("ada"), Some(4));
//! # Ok::<(), greenwave_cache::Error>(())
//! # }).unwrap();
//! ```
//!
//! [`Cache`]: crate::Cache
//! [`Cache::new`]: crate::Cache::new
//! [`Cache::with`]: crate::Cache::with
//! [`Cache::get`]: crate::Cache::get
//! [`Cache::contains`]: crate::Cache::contains
//! [`Cache::get_or_compute`]: crate::Cache::get_or_compute
//! [`Cache::get_or_compute_blocking`]: crate::Cache::get_or_compute_blocking
//! [`Cache::get_or_compute_by_ref`]: crate::Cache::get_or_compute_by_ref
//! [`Cache::get_or_reserve`]: crate::Cache::get_or_reserve
//! [`Cache::entry`]: crate::Cache::entry
//! [`Cache::remove`]: crate::Cache::remove
//! [`Cache::invalidate_all`]: crate::Cache::invalidate_all
//! [`Cache::invalidate_if`]: crate::Cache::invalidate_if
//! [`Cache::invalidate_tag`]: crate::Cache::invalidate_tag
//! [`Cache::purge_expired`]: crate::Cache::purge_expired
//! [`Cache::set_entries_max`]: crate::Cache::set_entries_max
//! [`Cache::set_weight_max`]: crate::Cache::set_weight_max
//! [`Cache::len`]: crate::Cache::len
//! [`Cache::iter`]: crate::Cache::iter
//! [`CacheEntry`]: crate::CacheEntry
//! [`CacheEntry::or_insert_with`]: crate::CacheEntry::or_insert_with
//! [`CacheEntry::upsert_with`]: crate::CacheEntry::upsert_with
//! [`CacheEntry::compute`]: crate::CacheEntry::compute
//! [`CacheOptions::entries_max`]: crate::CacheOptions::entries_max
//! [`CacheOptions::weight_max`]: crate::CacheOptions::weight_max
//! [`CacheOptions::weigher`]: crate::CacheOptions::weigher
//! [`CacheOptions::ttl`]: crate::CacheOptions::ttl
//! [`CacheOptions::tti`]: crate::CacheOptions::tti
//! [`CacheOptions::expiry`]: crate::CacheOptions::expiry
//! [`CacheOptions::listener`]: crate::CacheOptions::listener
//! [`CacheStats::weight`]: crate::CacheStats::weight
//! [`removal_channel`]: crate::removal_channel
