//! [`Tracker`]: the [`PresenceTable`] of a broker, and the thread that calls its hooks.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::table::{Change, PresenceTable, Transition};
use super::{Presence, PresenceHooks, PresenceSetting, PresenceTracker};
use crate::broker::clock::Age;
use crate::broker::sync::{Condvar, Mutex};
use crate::broker::{Broker, Handle};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::wire::Categories;

/// The most clients that are counted. `BrokerOptions::presence` and the guide give this number.
const MAX_PLACES: usize = 100_000;

/// The wakeup time of a thread that does not sleep.
const AWAKE: u64 = 0;
/// The wakeup time of a thread that sleeps until it is notified.
const NEVER: u64 = u64::MAX;

/// Counts the clients of a broker.
///
/// Lock order: the state's lock comes after those of categories, and its holder takes no other but that of a manual clock.
pub(super) struct Tracker {
    age: Age,
    hooks: PresenceHooks,
    state: Mutex<State>,
    /// Notified when the thread has something to do before it wakes up by itself.
    changed: Condvar,
    /// Notified when the thread ends.
    done: Condvar,
}

struct State {
    table: PresenceTable,
    /// A client was not counted, and the log says so.
    has_warned: bool,
    thread: Thread,
}

/// The thread that calls the hooks.
#[derive(Default)]
struct Thread {
    /// `None` before its start and after it was joined.
    handle: Option<JoinHandle<()>>,
    is_running: bool,
    /// The thread is to end.
    ended: bool,
    /// When it wakes up by itself.
    wakes_at: u64,
    /// The hook that it is in.
    hook: Option<&'static str>,
}

impl PresenceSetting {
    pub(in crate::broker) fn new(time: Duration) -> Self {
        PresenceSetting { time, create }
    }
}

/// Returns the tracker of a broker with these hooks.
fn create(hooks: PresenceHooks, time: Duration, age: &Age) -> Arc<dyn PresenceTracker> {
    let tracker = Arc::new(Tracker::new(hooks, time, age, MAX_PLACES));
    let woken = Arc::downgrade(&tracker);
    age.on_advance(move || match woken.upgrade() {
        Some(tracker) => {
            tracker.wake();
            true
        }
        None => false,
    });
    tracker
}

impl Tracker {
    pub(super) fn new(hooks: PresenceHooks, time: Duration, age: &Age, max_places: usize) -> Self {
        let keep = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let has_hooks = hooks != PresenceHooks::default();
        Tracker {
            age: age.clone(),
            hooks,
            state: Mutex::new(State {
                table: PresenceTable::new(keep, max_places, has_hooks),
                has_warned: false,
                thread: Thread::default(),
            }),
            changed: Condvar::default(),
            done: Condvar::default(),
        }
    }

    fn has_hooks(&self) -> bool {
        self.hooks != PresenceHooks::default()
    }

    /// Calls `work` with the table as it is now, and wakes the thread if that gives it something to do earlier.
    fn with_table<T>(&self, work: impl FnOnce(&mut State, u64) -> T) -> T {
        let mut state = self.state.lock();
        let now = self.age.now();
        state.table.expire(now);
        let result = work(&mut state, now);
        let next = match state.table.has_transitions() {
            true => AWAKE,
            false => state.table.next_end().unwrap_or(NEVER),
        };
        if next < state.thread.wakes_at {
            self.changed.notify_one();
        }
        result
    }

    /// Has the thread look at the clock again.
    fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_one();
    }

    /// Calls the hooks until the end.
    fn call_hooks(&self, broker: &Weak<Handle>) {
        while let Some(transition) = self.wait_for_transition() {
            let Some(handle) = broker.upgrade() else {
                break;
            };
            self.call_hook(transition, Broker(handle));
            self.state.lock().thread.hook = None;
        }
    }

    /// Waits for the next transition. `None` at the end.
    fn wait_for_transition(&self) -> Option<Transition> {
        let mut state = self.state.lock();
        loop {
            state.thread.wakes_at = AWAKE;
            if state.thread.ended {
                return None;
            }
            if let Some(transition) = state.table.next_transition(self.age.now()) {
                state.thread.hook = Some(hook_name(transition.change));
                return Some(transition);
            }
            let end = state.table.next_end();
            state.thread.wakes_at = end.unwrap_or(NEVER);
            let deadline = end.map_or(Deadline::NEVER, |end| self.age.deadline(end));
            deadline.wait(&self.changed, &mut state);
        }
    }

    fn call_hook(&self, transition: Transition, broker: Broker) {
        let hook = match transition.change {
            Change::Came => &self.hooks.on_subscribe,
            Change::Left => &self.hooks.on_leave,
        };
        if let Some(hook) = hook {
            let presence = Presence {
                category: transition.category,
                name: transition.name,
                subscribers: transition.subscribers,
                broker,
            };
            hook.call(hook_name(transition.change), &presence);
        }
    }
}

fn hook_name(change: Change) -> &'static str {
    match change {
        Change::Came => "on_subscribe",
        Change::Left => "on_leave",
    }
}

impl PresenceTracker for Tracker {
    fn enter(&self, categories: &Categories, name: Option<&str>) -> Vec<u64> {
        self.with_table(|state, now| {
            let mut places = Vec::with_capacity(categories.iter().count());
            for category in categories.iter() {
                match state.table.enter(category, name, now) {
                    Some(place) => places.push(place),
                    None if !std::mem::replace(&mut state.has_warned, true) => log::warn!(
                        "more than {MAX_PLACES} clients are present, so that further ones are not counted; \
                         shorten BrokerOptions::presence, or refuse clients that change their names"
                    ),
                    None => {}
                }
            }
            places
        })
    }

    fn leave(&self, places: &[u64]) {
        self.with_table(|state, now| {
            for place in places {
                state.table.leave(*place, now);
            }
        });
    }

    fn subscribers(&self, category: &str) -> usize {
        self.with_table(|state, _| state.table.subscribers(category))
    }

    fn names(&self, category: &str) -> Vec<String> {
        self.with_table(|state, _| state.table.names(category))
    }

    fn present(&self) -> usize {
        self.with_table(|state, _| state.table.present())
    }

    fn start(self: Arc<Self>, broker: Weak<Handle>) -> Result<(), Error> {
        if !self.has_hooks() {
            return Ok(());
        }
        let tracker = self.clone();
        let thread = thread::Builder::new().name("long-polling-presence".into());
        let mut state = self.state.lock();
        let spawned = thread.spawn(move || {
            tracker.call_hooks(&broker);
            tracker.state.lock().thread.is_running = false;
            tracker.done.notify_all();
        });
        let handle = spawned.map_err(|error| {
            let message = "can't start the thread that calls on_subscribe and on_leave; allow the process more threads";
            Error::new(ErrorKind::Busy, message).with_source(error)
        })?;
        state.thread.handle = Some(handle);
        state.thread.is_running = true;
        Ok(())
    }

    fn end(&self) {
        self.state.lock().thread.ended = true;
        self.changed.notify_all();
    }

    fn wait(&self, deadline: Deadline) -> Result<(), Error> {
        let mut state = self.state.lock();
        let own = state
            .thread
            .handle
            .as_ref()
            .map(|handle| handle.thread().id());
        if own == Some(thread::current().id()) {
            // A hook stops the broker.
            return Ok(());
        }
        let ended = deadline.wait_while(&self.done, &mut state, |state| state.thread.is_running);
        if !ended {
            let hook = state.thread.hook.unwrap_or("on_subscribe");
            let message = format!(
                "the hook BrokerOptions::{hook} has not returned before the end of the stop's timeout; \
                 stop again to wait longer"
            );
            return Err(Error::new(ErrorKind::StopTimeout, message));
        }
        let handle = state.thread.handle.take();
        drop(state);
        if let Some(handle) = handle {
            // It ends at once, and has caught panics.
            let _ = handle.join();
        }
        Ok(())
    }
}

#[cfg(all(test, shuttle))]
mod schedules {
    use super::*;
    use crate::broker::presence::PresenceHook;

    /// Clients that never leave, so that the thread sleeps without a deadline: a wakeup that is lost is a deadlock.
    fn schedule() {
        let hooks = PresenceHooks {
            on_subscribe: Some(PresenceHook::new(|_| {})),
            on_leave: None,
        };
        let age = Age::starting_now(&crate::broker::Clock::System);
        let tracker = Tracker::new(hooks, Duration::MAX, &age, MAX_PLACES);
        let tracker = Arc::new(tracker);
        let thread = {
            let tracker = tracker.clone();
            shuttle::thread::spawn(move || {
                let taken = [(); 3].map(|()| tracker.wait_for_transition());
                let mut names = taken.map(|it| it.and_then(|it| it.name).unwrap_or_default());
                names.sort_unstable();
                assert_eq!(names.map(|name| name.to_string()), ["a", "b", "c"]);
                assert_eq!(tracker.wait_for_transition(), None);
            })
        };
        let clients = ["a", "b", "b", "c"].map(|name| {
            let tracker = tracker.clone();
            shuttle::thread::spawn(move || tracker.enter(&"room".into(), Some(name)))
        });
        for client in clients {
            client.join().unwrap();
        }
        assert_eq!(tracker.names("room"), ["a", "b", "c"]);
        // Only what the thread has not taken yet is lost by the end.
        while tracker.state.lock().table.has_transitions() {
            shuttle::thread::yield_now();
        }
        tracker.end();
        thread.join().unwrap();
    }

    #[test]
    fn no_client_that_comes_is_missed_by_the_thread_of_the_hooks() {
        shuttle::check_random(schedule, 10_000);
        shuttle::check_pct(schedule, 10_000, 3);
    }
}
