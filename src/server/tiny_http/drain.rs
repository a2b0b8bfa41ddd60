//! [`UnreadBodies`]: what is left of refused bodies, read in pieces after the answer has left.
//!
//! tiny_http reads the rest of a body when its request is dropped, into a buffer as large as the rest that was announced,
//! and allocates another one for each read. It does the same once where the client closes its connection early. So:
//!
//! - A request whose rest is larger than [`SMALL`] is dropped only when its body has been read.
//! - A few threads read, which bounds what tiny_http allocates at the same time.
//! - A thread reads a rest only after it has found that memory for it can be allocated.
//!
//! A client that does not send its body in time keeps its request until it has closed its connection.

use std::collections::{HashSet, VecDeque};
use std::hint::black_box;
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tiny_http::ReadWrite;

use super::peers;

/// A rest of at most this many bytes is left to tiny_http.
pub(super) const SMALL: usize = 64 * 1024;
/// Bytes of one read.
const PIECE: usize = 16 * 1024;
/// The most threads that read. Each may keep the memory of one rest: glibc gives a large block back where it was mapped on
/// its own, and keeps one of up to 32 MiB for its thread.
const READERS: usize = 4;
/// How long a thread waits for another body before it ends: a new thread would take new memory.
const IDLE: Duration = Duration::from_secs(5);
/// The pause before another attempt to read a rest for which there was no memory.
const RETRY: Duration = Duration::from_secs(30);
/// Bytes of memory that must be left when tiny_http has allocated all rests that are being read.
const HEADROOM: usize = 16 << 20;

/// The bodies to read, and the late ones: their clients did not send the rest in time.
#[derive(Default)]
pub(super) struct UnreadBodies {
    state: Mutex<Queues>,
    /// A body has been added to the queue.
    added: Condvar,
    /// A reader has released its reservation.
    released: Condvar,
}

#[derive(Default)]
struct Queues {
    queue: VecDeque<UnreadBody>,
    /// Kept until their clients are gone or, for want of memory, until their next attempt.
    late: Vec<UnreadBody>,
    readers: usize,
    /// Readers that wait for a body.
    idle: usize,
    /// Bytes that tiny_http may allocate for the rests that are being read.
    reserved: usize,
}

/// A request whose body has not been read to its end.
pub(super) struct UnreadBody {
    /// Dropped by `close` only: dropping allocates `rest`.
    source: ManuallyDrop<Source>,
    remote: Option<SocketAddr>,
    /// Bytes that have not been read, at most.
    rest: usize,
    /// How long the client may take to send them.
    time_limit: Duration,
    /// There was no memory for the rest. The next attempt comes at this time.
    retry_at: Option<Instant>,
}

enum Source {
    Answered(Box<dyn ReadWrite + Send>),
    Unanswered(tiny_http::Request),
}

/// How the reading of a rest ended.
enum ReadResult {
    /// It has been read, or its connection has ended.
    Over,
    /// The client has not sent it in time.
    Late,
    /// There is no memory for what tiny_http may allocate.
    TooLarge,
}

impl UnreadBody {
    /// A request that gets no answer.
    pub(super) fn unanswered(
        request: tiny_http::Request,
        rest: usize,
        time_limit: Duration,
    ) -> Self {
        UnreadBody {
            remote: request.remote_addr().copied(),
            source: ManuallyDrop::new(Source::Unanswered(request)),
            rest,
            time_limit,
            retry_at: None,
        }
    }

    /// A request that has been answered; `stream` has the rest of its body.
    pub(super) fn answered(
        stream: Box<dyn ReadWrite + Send>,
        remote: Option<SocketAddr>,
        rest: usize,
        time_limit: Duration,
    ) -> Self {
        UnreadBody {
            source: ManuallyDrop::new(Source::Answered(stream)),
            remote,
            rest,
            time_limit,
            retry_at: None,
        }
    }

    fn read(&mut self) -> ReadResult {
        let deadline = Instant::now() + self.time_limit;
        let mut piece = [0; PIECE];
        while self.rest > 0 {
            let read = match &mut *self.source {
                Source::Answered(stream) => stream.read(&mut piece),
                Source::Unanswered(request) => request.as_reader().read(&mut piece),
            };
            match read {
                Ok(0) => return ReadResult::Over,
                Ok(length) => self.rest = self.rest.saturating_sub(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return ReadResult::Late;
                }
                Err(_) => return ReadResult::Over,
            }
            if self.rest > 0 && Instant::now() >= deadline {
                return ReadResult::Late;
            }
        }
        ReadResult::Over
    }

    /// Drops the request, for which tiny_http allocates `rest`.
    fn close(self) {
        match ManuallyDrop::into_inner(self.source) {
            Source::Answered(stream) => drop(stream),
            // Not dropped, which would answer it.
            Source::Unanswered(request) => drop(request.into_writer()),
        }
    }
}

impl UnreadBodies {
    /// Adds a body. A thread that may wait for the client reads the rest.
    pub(super) fn add(self: &Arc<Self>, body: UnreadBody) {
        self.state.lock().queue.push_back(body);
        self.start_readers();
    }

    /// True where no body waits to be read or closed.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.late.is_empty() && state.queue.is_empty()
    }

    /// Closes the requests of clients that have closed their connections; `connected` are the others.
    pub(super) fn close_abandoned(self: &Arc<Self>, connected: &HashSet<SocketAddr>) {
        if self.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        let (stay, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.late)
                .into_iter()
                .partition(|body| {
                    let remote = body.remote.map(peers::without_scope);
                    body.retry_at.is_some_and(|retry_at| now < retry_at)
                        || remote.is_some_and(|remote| connected.contains(&remote))
                });
        state.late = stay;
        state.queue.extend(gone);
        drop(state);
        self.start_readers();
    }

    /// Starts the threads that read the queue. Where none can be started, `close_abandoned` tries again.
    fn start_readers(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            self.added.notify_one();
            if state.queue.len() <= state.idle || state.readers >= READERS {
                return;
            }
            state.readers += 1;
            drop(state);
            let bodies = self.clone();
            let thread = thread::Builder::new().name("long-polling-drain".into());
            if let Err(error) = thread.spawn(move || bodies.run()) {
                log::debug!("no thread could be started to read a refused body: {error}");
                self.state.lock().readers -= 1;
                return;
            }
        }
    }

    fn run(&self) {
        while let Some(body) = self.next() {
            self.read(body);
        }
    }

    fn next(&self) -> Option<UnreadBody> {
        let deadline = Instant::now() + IDLE;
        let mut state = self.state.lock();
        loop {
            if let Some(next) = state.queue.pop_front() {
                return Some(next);
            }
            state.idle += 1;
            let timed_out = self.added.wait_until(&mut state, deadline).timed_out();
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                state.readers -= 1;
                return None;
            }
        }
    }

    fn read(&self, mut body: UnreadBody) {
        let reserved = body.rest;
        let result = if self.reserve(reserved) {
            body.read()
        } else {
            ReadResult::TooLarge
        };
        match result {
            ReadResult::Over => body.close(),
            // Where the system does not list connections, a client that has gone can't be noticed.
            ReadResult::Late if !peers::are_listed() => body.close(),
            ReadResult::Late => self.state.lock().late.push(body),
            ReadResult::TooLarge => {
                body.retry_at = Some(Instant::now() + RETRY);
                self.state.lock().late.push(body);
            }
        }
        if !matches!(result, ReadResult::TooLarge) {
            self.state.lock().reserved -= reserved;
            self.released.notify_all();
        }
    }

    /// Waits until `rest` can be allocated together with all other reservations. Returns `false` if it never can.
    fn reserve(&self, rest: usize) -> bool {
        let mut state = self.state.lock();
        loop {
            let all = rest
                .checked_add(state.reserved)
                .and_then(|all| all.checked_add(HEADROOM));
            if all.is_some_and(is_allocatable) {
                state.reserved += rest;
                return true;
            }
            if state.reserved == 0 {
                return false;
            }
            self.released.wait(&mut state);
        }
    }
}

fn is_allocatable(size: usize) -> bool {
    // Without black_box the optimizer removes the allocation, and every one seems to succeed.
    black_box(Vec::<u8>::new())
        .try_reserve_exact(black_box(size))
        .is_ok()
}
