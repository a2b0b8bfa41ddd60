//! [`Connections`]: the open connections with their threads, and the maintenance thread that looks after them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, Builder, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::capacity;
use super::connection::Connection;
use crate::server::service::Service;

/// How long a new connection waits for the place of one that has been shut down.
const MAKING_ROOM: Duration = Duration::from_secs(1);
/// The time between two looks at the clients of parked polls.
const PERIOD: Duration = Duration::from_millis(900);
/// The longest time between two searches for expired events.
const LONGEST_SWEEP: Duration = Duration::from_secs(60);
/// How many refused connections there may be besides the others, each until its client has the answer.
const MAX_REFUSED: usize = 32;

pub(super) struct Connections {
    pub(super) service: Arc<Service>,
    max: usize,
    /// Locked before the state of a connection.
    table: Mutex<Table>,
    /// Notified when a connection has left the table.
    left: Condvar,
    /// Notified when the maintenance thread has to look again, or to end.
    maintenance: Condvar,
    /// The maintenance thread looks again by itself, so that nothing needs to notify it.
    is_awake: AtomicBool,
}

#[derive(Default)]
struct Table {
    open: HashMap<ThreadId, (Arc<Connection>, JoinHandle<()>)>,
    /// Threads whose connections have left, until they have ended.
    ending: Vec<JoinHandle<()>>,
    maintenance_ends: bool,
}

/// A connection's place in the table. It leaves when this is dropped, also by a panic.
struct Place(Arc<Connections>);

impl Connections {
    pub(super) fn new(service: Arc<Service>) -> Self {
        let info = &service.info;
        Connections {
            max: capacity::max_connections(info.max_connections, info.thread_stack_size),
            service,
            table: Mutex::default(),
            left: Condvar::new(),
            maintenance: Condvar::new(),
            is_awake: AtomicBool::new(false),
        }
    }

    /// Starts the thread of a connection. Closes the connection if there are more refused ones than there may be, and after
    /// a stop has begun.
    ///
    /// # Errors
    ///
    /// Where the system has no thread for it.
    pub(super) fn start(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        serve: impl FnOnce(&Connections, &Connection) + Send + 'static,
    ) -> io::Result<()> {
        // Held until the thread is in the table, which it may leave at once.
        let mut table = self.table.lock();
        if self.service.is_stopping() || table.open.len() >= self.max + MAX_REFUSED {
            return Ok(());
        }
        let (connections, served) = (self.clone(), connection.clone());
        let thread = Builder::new()
            .name("long-polling-connection".into())
            .stack_size(self.service.info.thread_stack_size)
            .spawn(move || {
                let place = Place(connections);
                serve(&place.0, &served);
                drop(served);
            })?;
        let id = thread.thread().id();
        table.open.insert(id, (connection.clone(), thread));
        Ok(())
    }

    /// Makes room for one more connection. Returns `false` if none is idle.
    pub(super) fn make_room(&self) -> bool {
        self.end_idlest(self.max)
    }

    /// Shuts down the connection that has been idle longest. Returns `false` if none is idle.
    pub(super) fn end_one(&self) -> bool {
        let open = self.table.lock().open.len();
        self.end_idlest(open)
    }

    /// Shuts down the connections that have been idle longest, until fewer than `max` are open.
    fn end_idlest(&self, max: usize) -> bool {
        let mut table = self.table.lock();
        while table.open.len() >= max {
            let open = table.open.values().map(|(connection, _)| connection);
            let idle = open.filter_map(|connection| Some((connection.idle_since()?, connection)));
            let Some((_, idlest)) = idle.min_by_key(|(since, _)| *since) else {
                return false;
            };
            // Else it has received a request in this instant.
            if idlest.end(false) {
                self.left.wait_for(&mut table, MAKING_ROOM);
            }
        }
        true
    }

    /// The number of open connections.
    pub(super) fn count(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Shuts down the connections whose request has not come whole. The service is stopping: no more are started.
    pub(super) fn close(&self) {
        for (connection, _) in self.table.lock().open.values() {
            connection.end(true);
        }
    }

    /// Waits until all connections and their threads have ended. Returns `false` if the deadline came first.
    pub(super) fn join(&self, deadline: Instant) -> bool {
        let mut table = self.table.lock();
        let is_open = |table: &mut Table| !table.open.is_empty();
        self.left.wait_while_until(&mut table, is_open, deadline);
        if is_open(&mut table) {
            return false;
        }
        let ending = std::mem::take(&mut table.ending);
        drop(table);
        ending.into_iter().for_each(|thread| _ = thread.join());
        true
    }

    /// The open connections.
    pub(super) fn open(&self) -> Vec<Arc<Connection>> {
        let table = self.table.lock();
        let open = table.open.values().map(|(connection, _)| connection);
        open.cloned().collect()
    }

    /// Called after a poll has parked.
    pub(super) fn wake_maintenance(&self) {
        if !self.is_awake.load(SeqCst) {
            let _table = self.table.lock();
            self.is_awake.store(true, SeqCst);
            self.maintenance.notify_one();
        }
    }

    pub(super) fn end_maintenance(&self) {
        self.table.lock().maintenance_ends = true;
        self.maintenance.notify_one();
    }

    /// Looks after what no other thread can: clients that hang up while their polls are parked, and events that expire.
    /// Sleeps while there is none of these.
    pub(super) fn maintain(&self) {
        let broker = &self.service.broker;
        loop {
            broker.sweep();
            let sweep = broker.sweep_pause();
            let sweep = sweep.map_or(Duration::MAX, |pause| pause.clamp(PERIOD, LONGEST_SWEEP));
            // Before the look: a poll that parks after it notifies this thread.
            self.is_awake.store(false, SeqCst);
            let open = self.open();
            let parked = open
                .iter()
                .filter(|connection| connection.look_at_client())
                .count();
            drop(open);
            let mut table = self.table.lock();
            if parked > 0 {
                self.is_awake.store(true, SeqCst);
            }
            let sleeps = |table: &mut Table| !table.maintenance_ends && !self.is_awake.load(SeqCst);
            let slept = self.maintenance.wait_while_for(&mut table, sleeps, sweep);
            if !slept.timed_out() {
                let goes_on = |table: &mut Table| !table.maintenance_ends;
                self.maintenance.wait_while_for(&mut table, goes_on, PERIOD);
            }
            if table.maintenance_ends {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        table.ending.retain(|thread| !thread.is_finished());
        if let Some((_, thread)) = table.open.remove(&thread::current().id()) {
            table.ending.push(thread);
        }
        drop(table);
        self.0.left.notify_all();
    }
}
