//! Limits the number of sessions: a new one closes the least recently used one.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::HeaderMap;
use parking_lot::Mutex;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

/// The manager that creates sessions and passes messages to them.
pub(super) type Manager = LocalSessionManager;

/// Maximum number of open sessions.
const SESSIONS_MAX: usize = 64;
/// The header with the id of a session.
const SESSION_ID: &str = "mcp-session-id";

/// Keeps a session open while a response to its client lasts.
pub(super) struct Reservation(#[expect(dead_code, reason = "its drop is what counts")] Option<Arc<()>>);

/// The open sessions.
pub(super) struct Sessions {
    manager: Arc<Manager>,
    used: Mutex<Uses>,
}

/// When each session was last used.
#[derive(Default)]
struct Uses {
    /// Number of requests, which orders them.
    requests: u64,
    by_id: HashMap<String, Use>,
}

struct Use {
    /// Number of the last request.
    last: u64,
    /// Shared with each response that lasts.
    responses: Arc<()>,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut manager = Manager::default();
        // A client may be silent for hours, and a call may take as long. Sessions end when others
        // need their place.
        manager.session_config.keep_alive = None;
        Self { manager: Arc::new(manager), used: Mutex::default() }
    }
}

impl Sessions {
    pub(super) fn manager(&self) -> Arc<Manager> {
        Arc::clone(&self.manager)
    }

    /// Marks the session of a request as in use.
    pub(super) fn reserve(&self, headers: &HeaderMap) -> Reservation {
        let mut used = self.used.lock();
        used.requests += 1;
        let number = used.requests;
        let known = id_in(headers).and_then(|id| used.by_id.get_mut(id));
        Reservation(known.map(|session| {
            session.last = number;
            Arc::clone(&session.responses)
        }))
    }

    /// Takes note of a session that a response opens. Closes the least recently used one if there
    /// are too many. Returns `None` if all are in use, and the new one is closed.
    pub(super) async fn hold(&self, reservation: Reservation, response: &HeaderMap) -> Option<Reservation> {
        let Some(new) = id_in(response).filter(|id| !self.used.lock().by_id.contains_key(*id)) else {
            return Some(reservation);
        };
        let (reservation, closed) = {
            let open = self.manager.sessions.read().await;
            self.used.lock().add(new, |id| open.contains_key(id))
        };
        let is_refused = closed.as_deref() == Some(new);
        if let Some(closed) = closed {
            // A session that has ended meanwhile is not an error.
            let _ = self.manager.close_session(&closed.into()).await;
        }
        (!is_refused).then_some(reservation)
    }
}

impl Uses {
    /// Adds a session. Returns the one to close, if any.
    fn add(&mut self, new: &str, is_open: impl Fn(&str) -> bool) -> (Reservation, Option<String>) {
        self.by_id.retain(|id, _| is_open(id));
        let responses = Arc::new(());
        let reservation = Reservation(Some(Arc::clone(&responses)));
        self.by_id.insert(new.to_owned(), Use { last: self.requests, responses });
        if self.by_id.len() <= SESSIONS_MAX {
            return (reservation, None);
        }
        let unused = self.by_id.iter().filter(|(_, session)| Arc::strong_count(&session.responses) == 1);
        let oldest = unused.min_by_key(|(_, session)| session.last).map(|(id, _)| id.clone());
        let closed = oldest.unwrap_or_else(|| new.to_owned());
        self.by_id.remove(&closed);
        (reservation, Some(closed))
    }
}

fn id_in(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_session_is_closed() {
        let mut uses = Uses::default();
        let mut open: Vec<String> = Vec::new();
        let mut held: Vec<Reservation> = Vec::new();
        let mut add = |uses: &mut Uses, id: usize| {
            open.push(id.to_string());
            uses.requests += 1;
            let (reservation, closed) = uses.add(&id.to_string(), |id| open.iter().any(|it| it == id));
            open.retain(|id| Some(id) != closed.as_ref());
            (reservation, closed)
        };
        for id in 0..SESSIONS_MAX {
            let (reservation, closed) = add(&mut uses, id);
            assert_eq!(closed, None);
            // The first one is in use.
            held.extend((id == 0).then_some(reservation));
        }
        assert_eq!(add(&mut uses, 64).1.as_deref(), Some("1"));
        uses.by_id.get_mut("2").expect("an open session").last = 100;
        assert_eq!(add(&mut uses, 65).1.as_deref(), Some("3"));
        held.clear();
        assert_eq!(add(&mut uses, 66).1.as_deref(), Some("0"));
        // All are in use: the new one is refused.
        for session in uses.by_id.values() {
            held.push(Reservation(Some(Arc::clone(&session.responses))));
        }
        assert_eq!(add(&mut uses, 67).1.as_deref(), Some("67"));
        assert_eq!(uses.by_id.len(), SESSIONS_MAX);
    }
}
