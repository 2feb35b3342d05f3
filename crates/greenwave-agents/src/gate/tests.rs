//! Tests of the gate, against providers that are played in paused time.

use super::backoff::{ASKED_MAX, DELAY_MAX, DELAY_MIN};
use super::state::COOLDOWN;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Sends a request at once or after waiting, and returns the time of its admission.
async fn enter(gate: &Gate, started: Instant) -> (Admission, Duration) {
    let admission = gate.enter(&mut Place::new()).await;
    (admission, started.elapsed())
}

fn try_enter(gate: &Gate) -> Option<Admission> {
    gate.try_enter(&mut Place::new())
}

#[tokio::test(start_paused = true)]
async fn one_request_tries_first_after_an_overload() {
    let (gate, started) = (Gate::new(4), Instant::now());
    let together: Vec<_> = (0..3).map(|_| try_enter(&gate).expect("the gate is open")).collect();
    for admission in together {
        assert_eq!(admission.overloaded(Some(6 * SECOND)), 6 * SECOND);
    }
    assert!(try_enter(&gate).is_none(), "held back");
    let (mut probe, at) = enter(&gate, started).await;
    assert_eq!(at.as_secs(), 6);
    assert!(try_enter(&gate).is_none(), "the probe has not ended");
    probe.succeeded();
    assert!(try_enter(&gate).is_some());
}

#[tokio::test(start_paused = true)]
async fn delays_grow_and_are_reset_by_a_success() {
    let gate = Gate::new(1);
    let mut bound = DELAY_MIN;
    for _ in 0..12 {
        let delay = enter(&gate, Instant::now()).await.0.overloaded(None);
        assert!(delay >= COOLDOWN && delay <= bound.max(COOLDOWN), "{delay:?} of {bound:?}");
        bound = (bound * 2).min(DELAY_MAX);
    }
    enter(&gate, Instant::now()).await.0.succeeded();
    assert!(enter(&gate, Instant::now()).await.0.overloaded(None) <= DELAY_MIN);
}

#[tokio::test(start_paused = true)]
async fn a_long_delay_is_shortened() {
    let gate = Gate::new(1);
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(enter(&gate, Instant::now()).await.0.overloaded(Some(year)), ASKED_MAX);
}

/// Most answers take longer than the time after which a second request may try.
#[tokio::test(start_paused = true)]
async fn a_slow_answer_opens_the_gate_for_all() {
    let (gate, started) = (Gate::new(100), Instant::now());
    enter(&gate, started).await.0.overloaded(Some(SECOND));
    let calls = (0..40).map(|_| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let mut admission = enter(&gate, Instant::now()).await.0;
            tokio::time::sleep(10 * SECOND).await;
            admission.succeeded();
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    // The first answer, and then all others together, except a few that have begun meanwhile.
    assert!(started.elapsed() <= 23 * SECOND, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_accepted_request_opens_the_gate_before_it_ends() {
    let (gate, started) = (Gate::new(100), Instant::now());
    enter(&gate, started).await.0.overloaded(Some(6 * SECOND));
    let (probe, at) = enter(&gate, started).await;
    assert_eq!((at, try_enter(&gate).is_some()), (6 * SECOND, false));
    probe.acceptance().report();
    let others: Vec<_> = std::iter::from_fn(|| try_enter(&gate)).collect();
    assert!(others.len() >= 49, "{}", others.len());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_lets_the_next_request_through() {
    let (gate, started) = (Gate::new(2), Instant::now());
    enter(&gate, started).await.0.overloaded(Some(6 * SECOND));
    drop(enter(&gate, started).await);
    let (mut probe, at) = enter(&gate, started).await;
    assert!(at < 8 * SECOND, "{at:?}");
    probe.succeeded();
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_cannot_be_reached_is_tried_by_one_request() {
    let gate = Gate::new(8);
    let mut together: Vec<_> = (0..6).map(|_| try_enter(&gate).unwrap()).collect();
    together.pop().unwrap().unreachable();
    // The others still run, but no more are sent.
    assert_eq!((gate.limit(), try_enter(&gate).is_some()), (0, false));
    tokio::time::sleep(2 * SECOND).await;
    let trial = try_enter(&gate).unwrap();
    assert!(try_enter(&gate).is_none());
    trial.acceptance().report();
    assert!(try_enter(&gate).is_some());
}

/// A provider that serves a number of requests at once, or in a window of time.
#[derive(Debug)]
struct Provider {
    served_max: usize,
    window: Option<Duration>,
    busy: Mutex<Busy>,
}

#[derive(Debug)]
struct Busy {
    slots: usize,
    used: Vec<Instant>,
    since: Instant,
    /// Slots in use, integrated over time.
    area: f64,
    /// Its value when the last request was accepted.
    area_accepted: f64,
    last_accepted: Instant,
    refused: usize,
}

impl Provider {
    fn new(served_max: usize, window: Option<Duration>) -> Arc<Self> {
        let now = Instant::now();
        let busy = Busy {
            slots: 0,
            used: vec![],
            since: now,
            area: 0.0,
            area_accepted: 0.0,
            last_accepted: now,
            refused: 0,
        };
        Arc::new(Self { served_max, window, busy: Mutex::new(busy) })
    }

    fn accept(&self) -> bool {
        let (mut busy, now) = (self.busy.lock(), Instant::now());
        let has_room = match self.window {
            None => busy.slots < self.served_max,
            Some(window) => {
                busy.used.retain(|used| now - *used < window);
                busy.used.len() < self.served_max
            }
        };
        if !has_room {
            busy.refused += 1;
            return false;
        }
        busy.count(now, 1);
        busy.used.push(now);
        (busy.last_accepted, busy.area_accepted) = (now, busy.area);
        true
    }

    /// Serves a request, or refuses it.
    async fn call(&self, time: Duration, acceptance: &Acceptance) -> bool {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if !self.accept() {
            return false;
        }
        acceptance.report();
        tokio::time::sleep(time).await;
        self.busy.lock().count(Instant::now(), -1);
        true
    }

    /// Returns the share of its slots that were in use as long as requests waited.
    fn share(&self, started: Instant) -> f64 {
        let busy = self.busy.lock();
        busy.area_accepted / (self.served_max as f64 * (busy.last_accepted - started).as_secs_f64())
    }
}

impl Busy {
    fn count(&mut self, now: Instant, change: isize) {
        self.area += self.slots as f64 * (now - self.since).as_secs_f64();
        self.since = now;
        self.slots = self.slots.saturating_add_signed(change);
    }
}

/// Sends requests of these lengths through the gates in turn. Returns the order of their ends.
async fn send_all(gates: &[Gate], provider: &Arc<Provider>, times: &[Duration]) -> Vec<usize> {
    let order = Arc::new(Mutex::new(Vec::new()));
    let calls = times.iter().enumerate().map(|(number, time)| {
        let (gate, provider) = (gates[number % gates.len()].clone(), Arc::clone(provider));
        let (time, order) = (*time, Arc::clone(&order));
        let mut place = Place::new();
        tokio::spawn(async move {
            loop {
                let mut admission = gate.enter(&mut place).await;
                if provider.call(time, &admission.acceptance()).await {
                    admission.succeeded();
                    order.lock().push(number);
                    return;
                }
                admission.overloaded(Some(SECOND));
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    std::mem::take(&mut *order.lock())
}

/// Two agents share the gate. A sleep after each refusal would leave most slots unused.
#[tokio::test(start_paused = true)]
async fn a_limit_of_requests_at_once_is_used_to_nine_tenths() {
    for (requests, limit) in [(50, 20), (200, 20), (30, 1), (40, 7)] {
        let (gate, started) = (Gate::new(100), Instant::now());
        let provider = Provider::new(limit, None);
        // From 1.5 to 2.5 s.
        let times: Vec<_> = (0..requests).map(|it| Duration::from_millis(1500 + it * 617 % 1000)).collect();
        let order = send_all(&[gate.clone(), gate.clone()], &provider, &times).await;
        assert_eq!(order.len(), times.len());
        let share = provider.share(started);
        assert!(share >= 0.95, "{share} of {limit}");
        assert!(gate.limit() <= limit + 1, "{}", gate.limit());
        // The first wave, and then one a second at most or one for each round.
        let refused = provider.busy.lock().refused;
        let seconds = started.elapsed().as_secs() as usize;
        assert!(refused <= times.len() - limit + seconds + times.len() / limit, "{refused} in {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_goes_before_later_ones() {
    let gate = Gate::new(100);
    let provider = Provider::new(2, None);
    let order = send_all(&[gate], &provider, &[SECOND; 12]).await;
    // Requests that are accepted at the same time end together.
    let early = |place: usize| order.iter().position(|number| *number == place).unwrap();
    for number in 0..12 {
        assert!(early(number).abs_diff(number) <= 3, "{order:?}");
    }
}

/// A replacement for a request that ends is refused as well, as the window is used up.
#[tokio::test(start_paused = true)]
async fn a_limit_of_requests_in_a_minute_is_waited_for() {
    let (gate, started) = (Gate::new(100), Instant::now());
    let provider = Provider::new(20, Some(60 * SECOND));
    let times = vec![2 * SECOND; 50];
    send_all(std::slice::from_ref(&gate), &provider, &times).await;
    // Three windows, and a delay of up to a minute after each of the first two.
    assert!(started.elapsed() <= (2 * 60 + 2 * 60 + 4) * SECOND, "{:?}", started.elapsed());
    let refused = provider.busy.lock().refused;
    // The first wave, and then one in each delay of up to a minute.
    assert!(refused <= 30 + 5 + 3 * 20, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_is_found() {
    let gate = Gate::new(100);
    send_all(std::slice::from_ref(&gate), &Provider::new(4, None), &[SECOND; 20]).await;
    assert!(gate.limit() <= 5);
    send_all(std::slice::from_ref(&gate), &Provider::new(100, None), &[SECOND; 400]).await;
    assert!(gate.limit() >= 50, "{}", gate.limit());
}
