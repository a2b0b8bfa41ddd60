//! The crew: the threads that receive requests and answer them, as many as there is waiting to be done.
//!
//! A few of them, as many as there are cores, wait for requests; each holds a [`Turn`]. One that is about to wait for
//! anything else (a body, a hook, an event) passes its turn on first, to the thread that went idle last or to a new one,
//! and joins the idle when its request is answered. So however many subscribers are parked, there is always someone to
//! receive; and the threads that receive are few and warm: with thousands of threads waiting for requests, publishes
//! fall to a quarter, since each is then received by the thread that has slept longest.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::gate::Gate;

/// How long a thread stays idle before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// Only the pages that a thread touches cost memory. Hooks and the fallback run here.
const STACK: usize = 512 * 1024;

/// What the crew does with a request.
pub(super) trait Work: Send + Sync + 'static {
    fn handle(&self, request: tiny_http::Request, turn: &mut Turn);
    /// The accept loop of a gate has ended.
    fn accept_failed(&self, error: std::io::Error);
}

/// All threads that serve requests.
pub(super) struct Crew {
    work: Arc<dyn Work>,
    /// The most threads that wait for requests at one gate.
    receivers: usize,
    idle: Mutex<Idle>,
    /// Told when no request is being served any more.
    done: Condvar,
    /// Connections of which a request is being served by a thread that has passed its turn, each with the requests that
    /// came after it. A connection's answers leave in order, so whoever served one of these would wait.
    queues: Mutex<HashMap<SocketAddr, VecDeque<tiny_http::Request>>>,
}

#[derive(Default)]
struct Idle {
    /// The thread that went idle last is the last.
    seats: Vec<Arc<Seat>>,
    /// Requests being served.
    serving: usize,
    closed: bool,
}

/// Where an idle thread waits to be called.
#[derive(Default)]
struct Seat {
    call: Mutex<Option<Call>>,
    called: Condvar,
}

enum Call {
    /// Take a turn at this gate.
    Turn(Arc<Gate>),
    /// End.
    Leave,
}

impl Seat {
    fn call(&self, call: Call) {
        *self.call.lock() = Some(call);
        self.called.notify_one();
    }

    /// Waits for a call; `None` is no deadline.
    fn wait(&self, deadline: Option<Instant>) -> Option<Call> {
        let mut call = self.call.lock();
        while call.is_none() {
            match deadline {
                None => self.called.wait(&mut call),
                Some(deadline) if self.called.wait_until(&mut call, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        call.take()
    }
}

/// A thread's turn to receive requests at a gate.
pub(super) struct Turn {
    crew: Arc<Crew>,
    gate: Arc<Gate>,
    held: bool,
    /// The connection of the request being served.
    remote: Option<SocketAddr>,
}

impl Turn {
    /// Hands the turn to another thread, so that this one may wait for whatever it likes.
    ///
    /// # Errors
    ///
    /// Where no thread can be had: then this one has to go on receiving, and may not wait.
    pub(super) fn pass(&mut self) -> std::io::Result<()> {
        if !self.held {
            return Ok(());
        }
        self.crew.hand_over(self.gate.clone())?;
        self.held = false;
        if let Some(remote) = self.remote {
            self.crew.queues.lock().entry(remote).or_default();
        }
        Ok(())
    }
}

impl Crew {
    pub(super) fn new(work: Arc<dyn Work>) -> Arc<Self> {
        let receivers = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        let (idle, done, queues) = Default::default();
        Arc::new(Crew {
            work,
            receivers,
            idle,
            done,
            queues,
        })
    }

    /// Has a gate's requests received.
    ///
    /// # Errors
    ///
    /// Where not one thread can be had.
    pub(super) fn receive_at(self: &Arc<Self>, gate: &Arc<Gate>) -> std::io::Result<()> {
        self.hand_over(gate.clone())?;
        for _ in 1..self.receivers {
            let _ = self.hand_over(gate.clone());
        }
        Ok(())
    }

    /// Gives a turn to the thread that went idle last, or to a new one.
    pub(super) fn hand_over(self: &Arc<Self>, gate: Arc<Gate>) -> std::io::Result<()> {
        let mut idle = self.idle.lock();
        if let Some(seat) = idle.seats.pop() {
            drop(idle);
            seat.call(Call::Turn(gate));
            return Ok(());
        }
        drop(idle);
        let crew = self.clone();
        let thread = thread::Builder::new()
            .name("long-polling-crew".into())
            .stack_size(STACK);
        thread.spawn(move || crew.run(gate)).map(drop)
    }

    fn run(self: Arc<Self>, gate: Arc<Gate>) {
        let mut gate = Some(gate);
        while let Some(at) = gate.take() {
            let mut turn = Turn {
                crew: self.clone(),
                gate: at,
                held: true,
                remote: None,
            };
            while turn.held {
                let next = turn
                    .gate
                    .next(self.receivers, |error| self.work.accept_failed(error));
                let Some(request) = next else { break };
                self.serve(request, &mut turn);
            }
            drop(turn);
            gate = self.sit();
        }
    }

    /// Serves a request, and those that its connection sends meanwhile.
    fn serve(&self, request: tiny_http::Request, turn: &mut Turn) {
        turn.remote = request.remote_addr().copied();
        let Some(mut request) = self.unless_queued(request) else {
            return;
        };
        loop {
            self.idle.lock().serving += 1;
            if catch_unwind(AssertUnwindSafe(|| self.work.handle(request, turn))).is_err() {
                // tiny_http answers a request that is dropped with 500. The thread and its turn go on.
                log::error!("serving a request panicked");
            }
            let mut idle = self.idle.lock();
            idle.serving -= 1;
            if idle.serving == 0 {
                self.done.notify_all();
            }
            drop(idle);
            if turn.held {
                return;
            }
            match turn.remote.and_then(|remote| self.next_queued(remote)) {
                Some(next) => request = next,
                None => return,
            }
        }
    }

    /// Gives the request back unless an earlier one of its connection is still being served: then it has to wait.
    fn unless_queued(&self, request: tiny_http::Request) -> Option<tiny_http::Request> {
        let mut queues = self.queues.lock();
        let queue = request
            .remote_addr()
            .and_then(|remote| queues.get_mut(remote));
        match queue {
            Some(queue) => queue.push_back(request),
            None => return Some(request),
        }
        None
    }

    fn next_queued(&self, remote: SocketAddr) -> Option<tiny_http::Request> {
        let mut queues = self.queues.lock();
        let next = queues.get_mut(&remote).and_then(VecDeque::pop_front);
        if next.is_none() {
            queues.remove(&remote);
        }
        next
    }

    /// Waits for a turn; `None` when the thread is to end.
    fn sit(&self) -> Option<Arc<Gate>> {
        let seat = Arc::new(Seat::default());
        let mut idle = self.idle.lock();
        if idle.closed {
            return None;
        }
        idle.seats.push(seat.clone());
        drop(idle);
        let call = seat.wait(Some(Instant::now() + IDLE)).or_else(|| {
            let mut idle = self.idle.lock();
            let at = idle
                .seats
                .iter()
                .position(|other| Arc::ptr_eq(other, &seat));
            if let Some(at) = at {
                idle.seats.remove(at);
                return None;
            }
            drop(idle);
            // Whoever took the seat out is about to call.
            seat.wait(None)
        });
        match call {
            Some(Call::Turn(gate)) => Some(gate),
            Some(Call::Leave) | None => None,
        }
    }

    /// Sees to it that somebody receives at a gate. `before` is its progress a while ago: where nobody waits for
    /// requests and none was given out since, all who have a turn there are held up by something that was not expected
    /// to wait, such as a client that does not read its answer.
    pub(super) fn relieve(self: &Arc<Self>, gate: &Arc<Gate>, before: u64) -> u64 {
        let (waiting, given) = gate.progress();
        if waiting == 0
            && given == before
            && let Err(error) = self.hand_over(gate.clone())
        {
            log::warn!("no thread can be had to receive requests: {error}");
        }
        given
    }

    /// Waits until no request is being served; false where the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        let mut idle = self.idle.lock();
        while idle.serving > 0 && !self.done.wait_until(&mut idle, deadline).timed_out() {}
        idle.serving == 0
    }

    /// Ends the idle threads, and the others when they are done.
    pub(super) fn close(&self) {
        let mut idle = self.idle.lock();
        idle.closed = true;
        let seats = std::mem::take(&mut idle.seats);
        drop(idle);
        seats.iter().for_each(|seat| seat.call(Call::Leave));
    }
}
