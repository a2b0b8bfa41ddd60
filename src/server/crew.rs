//! The crew: the threads that receive requests and answer them, as many as there is waiting to be done.
//!
//! A few of them, as many as there are cores, wait for requests; each holds a [`Turn`]. One that is about to wait for
//! anything else (a body, a hook, an event) passes its turn on first, to the thread that went idle last or to a new one,
//! and joins the idle when its request is answered. So however many subscribers are parked, there is always someone to
//! receive; and the threads that receive are few and warm: with thousands of threads waiting for requests, publishes
//! fall to a quarter, since each is then received by the thread that has slept longest.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::gate::Gate;

/// How long a thread stays idle before it ends.
const IDLE: Duration = Duration::from_secs(3);
/// Only the pages that a thread touches cost memory. Hooks and the fallback run here.
const STACK: usize = 512 * 1024;

/// What the crew does with a request.
pub(super) trait Work: Send + Sync + 'static {
    fn handle(&self, request: tiny_http::Request, turn: &mut Turn);
    /// The accept loop of a gate has ended.
    fn accept_failed(&self, gate: &Arc<Gate>, error: io::Error);
}

/// All threads that serve requests.
pub(super) struct Crew {
    work: Arc<dyn Work>,
    /// The most threads that wait for requests at one gate.
    receivers: usize,
    idle: Mutex<Idle>,
    /// Told when no request is being served any more.
    done: Condvar,
    /// Connections of which a request is being served, each with the requests that came after it. A connection's answers
    /// leave in order, so whoever served one of these at the same time would wait for the first.
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

/// What a thread is called to.
enum Call {
    /// Take a turn at this gate.
    Turn(Arc<Gate>),
    /// Finish a request of this connection, whose server did not want to wait.
    Finish(Job, Option<SocketAddr>),
    /// End.
    Leave,
}

/// The rest of a request; told whether it may wait.
type Job = Box<dyn FnOnce(bool) + Send>;

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
    /// `None` once it has been passed.
    gate: Option<Arc<Gate>>,
    /// The connection of the request being served.
    remote: Option<SocketAddr>,
    /// Another thread finishes the request, and serves those that came after it on its connection.
    handed_over: bool,
}

impl Turn {
    /// Hands the turn to another thread, so that this one may wait for whatever it likes.
    ///
    /// # Errors
    ///
    /// Where no thread can be had: then this one has to go on receiving, and may not wait.
    pub(super) fn pass(&mut self) -> io::Result<()> {
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        self.crew
            .call(Call::Turn(gate.clone()))
            .map_err(|(error, _)| error)?;
        self.gate = None;
        Ok(())
    }

    /// Stops counting the request as in flight until the returned value is dropped. A stop does not wait for the rest of
    /// a body, which the client may never send. After dropping the value, the caller must check whether the server is
    /// stopping: a stop that has not waited for this request is visible then.
    pub(super) fn receiving(&self) -> Receiving {
        self.crew.served();
        Receiving(self.crew.clone())
    }

    /// The gate that the request came out of, unless the turn has been passed.
    pub(super) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    /// Has another thread finish the request, and keeps the turn; this thread does it itself where it has no turn. For
    /// waits as long and as many as those of parked polls this is better than to pass the turn: the memory that a
    /// thread's stack has once touched stays taken, and whoever only waits and answers touches little of it.
    pub(super) fn finish_elsewhere(&mut self, finish: impl FnOnce(bool) + Send + 'static) {
        if self.gate.is_none() {
            return finish(true);
        }
        self.crew.idle.lock().serving += 1;
        if let Err((_, Call::Finish(finish, _))) =
            self.crew.call(Call::Finish(Box::new(finish), self.remote))
        {
            // No thread can be had.
            finish(false);
            self.crew.served();
        } else {
            self.handed_over = true;
        }
    }
}

/// Takes a request off those in flight for as long as it has not been received whole; see [`Turn::receiving`].
pub(super) struct Receiving(Arc<Crew>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.idle.lock().serving += 1;
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
    pub(super) fn receive_at(self: &Arc<Self>, gate: &Arc<Gate>) -> io::Result<()> {
        for receiver in 0..self.receivers {
            if let (0, Err((error, _))) = (receiver, self.call(Call::Turn(gate.clone()))) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Calls the thread that went idle last, or a new one; gives the call back where no thread can be had.
    fn call(self: &Arc<Self>, call: Call) -> Result<(), (io::Error, Call)> {
        if let Some(seat) = self.idle.lock().seats.pop() {
            seat.call(call);
            return Ok(());
        }
        let seat = Arc::new(Seat {
            call: Mutex::new(Some(call)),
            called: Condvar::new(),
        });
        let (crew, first) = (self.clone(), seat.clone());
        let thread = thread::Builder::new()
            .name("long-polling-crew".into())
            .stack_size(STACK);
        thread
            .spawn(move || crew.run(&first))
            .map(drop)
            .map_err(|error| {
                let call = seat.call.lock().take();
                (error, call.unwrap_or(Call::Leave))
            })
    }

    fn run(self: Arc<Self>, first: &Seat) {
        let mut call = first.wait(None);
        while let Some(what) = call {
            match what {
                Call::Turn(gate) => self.receive(gate),
                Call::Finish(job, remote) => self.finish(job, remote),
                Call::Leave => return,
            }
            call = self.sit();
        }
    }

    /// Receives and serves requests for as long as the turn is not passed.
    fn receive(self: &Arc<Self>, gate: Arc<Gate>) {
        let mut turn = Turn {
            crew: self.clone(),
            gate: Some(gate),
            remote: None,
            handed_over: false,
        };
        while let Some(gate) = &turn.gate {
            let next = gate.next(
                self.receivers,
                |request| self.unless_queued(request),
                |error| self.work.accept_failed(gate, error),
            );
            let Some(request) = next else { return };
            turn.remote = request.remote_addr().copied();
            self.serve_connection(request, &mut turn);
        }
    }

    // Not inlined, so that its frame, and those of whatever serves requests, are not below a wait for the next call.
    #[inline(never)]
    fn finish(self: &Arc<Self>, job: Job, remote: Option<SocketAddr>) {
        if catch_unwind(AssertUnwindSafe(|| job(true))).is_err() {
            log::error!("finishing a request panicked");
        }
        self.served();
        if let Some(next) = self.next_queued(remote) {
            self.serve_connection(
                next,
                &mut Turn {
                    crew: self.clone(),
                    gate: None,
                    remote,
                    handed_over: false,
                },
            );
        }
    }

    /// Serves a request, and then those that its connection has sent meanwhile.
    fn serve_connection(&self, request: tiny_http::Request, turn: &mut Turn) {
        let mut next = Some(request);
        while let Some(request) = next {
            self.serve(request, turn);
            if std::mem::take(&mut turn.handed_over) {
                return;
            }
            next = self.next_queued(turn.remote);
        }
    }

    fn serve(&self, request: tiny_http::Request, turn: &mut Turn) {
        self.idle.lock().serving += 1;
        if catch_unwind(AssertUnwindSafe(|| self.work.handle(request, turn))).is_err() {
            // tiny_http answers a request that is dropped with 500. The thread and its turn go on.
            log::error!("serving a request panicked");
        }
        self.served();
    }

    fn served(&self) {
        let mut idle = self.idle.lock();
        idle.serving -= 1;
        if idle.serving == 0 {
            self.done.notify_all();
        }
    }

    /// Gives the request back unless an earlier one of its connection is still being served: then it has to wait.
    fn unless_queued(&self, request: tiny_http::Request) -> Option<tiny_http::Request> {
        let Some(remote) = request.remote_addr() else {
            return Some(request);
        };
        match self.queues.lock().entry(*remote) {
            Entry::Occupied(mut queue) => queue.get_mut().push_back(request),
            Entry::Vacant(queue) => {
                queue.insert(VecDeque::new());
                return Some(request);
            }
        }
        None
    }

    fn next_queued(&self, remote: Option<SocketAddr>) -> Option<tiny_http::Request> {
        let mut queues = self.queues.lock();
        let next = queues.get_mut(&remote?)?.pop_front();
        if next.is_none() {
            queues.remove(&remote?);
        }
        next
    }

    /// Waits for a call; `None` when the thread is to end.
    fn sit(&self) -> Option<Call> {
        let seat = Arc::new(Seat::default());
        let mut idle = self.idle.lock();
        if idle.closed {
            return None;
        }
        idle.seats.push(seat.clone());
        drop(idle);
        seat.wait(Some(Instant::now() + IDLE)).or_else(|| {
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
        })
    }

    /// Sees to it that somebody receives at a gate. `before` is its progress a while ago: where nobody waits for
    /// requests and none was given out since, all who have a turn there are held up by something that was not expected
    /// to wait, such as a client that does not read its answer.
    pub(super) fn relieve(self: &Arc<Self>, gate: &Arc<Gate>, before: u64) -> u64 {
        let (waiting, given) = gate.progress();
        if waiting == 0
            && given == before
            && let Err((error, _)) = self.call(Call::Turn(gate.clone()))
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

    /// Ends the idle threads.
    pub(super) fn dismiss_idle(&self) {
        let seats = std::mem::take(&mut self.idle.lock().seats);
        seats.iter().for_each(|seat| seat.call(Call::Leave));
    }

    /// Ends the idle threads, and the others when they are done.
    pub(super) fn close(&self) {
        self.idle.lock().closed = true;
        self.dismiss_idle();
    }
}
