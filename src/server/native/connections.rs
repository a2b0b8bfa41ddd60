//! [`Connections`]: the open connections and their threads.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::Connection;

/// How long a new connection waits for the place of one that has been shut down.
const MAKING_ROOM: Duration = Duration::from_secs(1);

pub(super) struct Connections {
    /// Locked before the state of a connection.
    table: Mutex<Table>,
    /// Notified when a connection has left the table, and at the stop.
    left: Condvar,
    closing: AtomicBool,
    max: usize,
    stack_size: usize,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, (Arc<Connection>, Option<JoinHandle<()>>)>,
    next: u64,
    /// The thread whose connection left last. The next one joins it, since no thread can join itself.
    ending: Option<JoinHandle<()>>,
}

/// A connection's place in the table. It leaves when this is dropped, also by a panic.
struct Place(Arc<Connections>, u64);

impl Connections {
    pub(super) fn new(max: usize, stack_size: usize) -> Self {
        Connections {
            table: Mutex::default(),
            left: Condvar::new(),
            closing: AtomicBool::new(false),
            max,
            stack_size,
        }
    }

    /// True from the stop on: every connection is closed after its next answer.
    pub(super) fn are_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// Starts the thread of a connection.
    ///
    /// # Errors
    ///
    /// Where the system has no thread for it.
    pub(super) fn start(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        serve: impl FnOnce(&Connection) + Send + 'static,
    ) -> io::Result<()> {
        let mut table = self.table.lock();
        if self.are_closing() {
            return Ok(());
        }
        let number = table.next;
        table.next += 1;
        table.open.insert(number, (connection.clone(), None));
        drop(table);
        // If no thread starts, these are dropped as well.
        let (place, connection) = (Place(self.clone(), number), connection.clone());
        let thread = Builder::new()
            .name("long-polling-connection".into())
            .stack_size(self.stack_size)
            .spawn(move || {
                let _place = place;
                serve(&connection);
                drop(connection);
            })?;
        let mut table = self.table.lock();
        if let Some((_, entry)) = table.open.get_mut(&number) {
            *entry = Some(thread);
            return Ok(());
        }
        // It has left already.
        drop(table);
        let _ = thread.join();
        Ok(())
    }

    /// Shuts down the connection that has been idle longest. Returns `false` if none is idle.
    pub(super) fn end_idlest(&self) -> bool {
        let table = self.table.lock();
        loop {
            let open = table.open.values().map(|(connection, _)| connection);
            let idle = open.filter_map(|connection| Some((connection.idle_since()?, connection)));
            match idle.min_by_key(|(since, _)| *since) {
                None => return false,
                Some((_, idlest)) if idlest.end(false) => return true,
                // It received a request in this instant.
                Some(_) => {}
            }
        }
    }

    /// Makes room for one more connection. Returns `false` if none is idle.
    pub(super) fn make_room(&self) -> bool {
        let now = Instant::now();
        let has_room = |open| open < self.max;
        self.wait(now, has_room) || self.end_idlest() && self.wait(now + MAKING_ROOM, has_room)
    }

    /// Waits until the number of open connections meets a condition. Returns `false` if it does not by the deadline.
    fn wait(&self, deadline: Instant, is_met: impl Fn(usize) -> bool) -> bool {
        let mut table = self.table.lock();
        while !is_met(table.open.len()) {
            if self.left.wait_until(&mut table, deadline).timed_out() {
                return is_met(table.open.len());
            }
        }
        true
    }

    /// Waits until a connection has left, or until the stop.
    pub(super) fn wait_for_one(&self, timeout: Duration) {
        let mut table = self.table.lock();
        if !self.are_closing() {
            self.left.wait_for(&mut table, timeout);
        }
    }

    /// The number of open connections.
    pub(super) fn open(&self) -> usize {
        self.table.lock().open.len()
    }

    /// The connections whose polls are parked.
    pub(super) fn parked(&self) -> Vec<Arc<Connection>> {
        let table = self.table.lock();
        let open = table.open.values().map(|(connection, _)| connection);
        open.filter(|connection| connection.is_parked())
            .cloned()
            .collect()
    }

    /// Takes no more connections, and shuts down those whose request has not come whole.
    pub(super) fn close(&self) {
        let table = self.table.lock();
        self.closing.store(true, SeqCst);
        for (connection, _) in table.open.values() {
            connection.end(true);
        }
        self.left.notify_all();
    }

    /// Waits until all connections and their threads have ended. Returns `false` if the deadline came first.
    pub(super) fn join(&self, deadline: Instant) -> bool {
        if !self.wait(deadline, |open| open == 0) {
            return false;
        }
        let last = self.table.lock().ending.take();
        last.is_none_or(|last| last.join().is_ok())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Place(connections, number) = self;
        let mut table = connections.table.lock();
        let thread = table.open.remove(number).and_then(|(_, thread)| thread);
        let before = thread.and_then(|thread| table.ending.replace(thread));
        drop(table);
        connections.left.notify_all();
        if let Some(before) = before {
            let _ = before.join();
        }
    }
}
