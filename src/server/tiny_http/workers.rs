//! [`WorkerPool`]: the threads that receive requests and answer them, as many as are needed.
//!
//! A few workers, as many as there are cores, wait for requests; each has a [`ReceiveToken`]. A worker that is about to
//! block on anything else (a body, a hook, an event) passes its token to another worker first. So some workers always
//! receive, however many subscribers are parked. And they are few and warm: with thousands of threads waiting for requests,
//! publishes fall to a quarter, since each is then received by the thread that has slept longest.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{SendError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::connections::peer;
use super::listener::{Acceptor, RECEIVERS};
use super::{Shared, exchange};

/// How long a worker stays idle before it ends.
const IDLE: Duration = Duration::from_secs(3);
/// A worker's stack, in bytes. Hooks and the fallback run on it. Only the pages that a thread touches cost memory.
const STACK: usize = 512 * 1024;

/// What a worker does. The argument is `true` where it may block.
type Task = Box<dyn FnOnce(bool) + Send>;

/// The idle workers, by channels without a buffer, so that no task is lost whose worker ends. The worker that went idle
/// last is the last. `None` once the pool is closed.
pub(super) struct WorkerPool(Mutex<Option<Vec<SyncSender<Task>>>>);

impl WorkerPool {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(WorkerPool(Mutex::new(Some(Vec::new()))))
    }

    /// Runs a task on the worker that went idle last, or on a new one.
    ///
    /// # Errors
    ///
    /// Gives the task back where no thread can be started.
    fn run(self: &Arc<Self>, mut task: Task) -> Result<(), (io::Error, Option<Task>)> {
        let pop = || self.0.lock().as_mut().and_then(Vec::pop);
        while let Some(worker) = pop() {
            match worker.send(task) {
                Ok(()) => return Ok(()),
                Err(SendError(unsent)) => task = unsent,
            }
        }
        let first = Arc::new(Mutex::new(Some(task)));
        let (pool, of_thread) = (self.clone(), first.clone());
        let thread = thread::Builder::new().name("long-polling-worker".into());
        let started = thread.stack_size(STACK).spawn(move || {
            let mut next = of_thread.lock().take();
            while let Some(task) = next {
                task(true);
                next = pool.wait_for_task();
            }
        });
        started
            .map(drop)
            .map_err(|error| (error, first.lock().take()))
    }

    /// `None` when the worker is to end.
    fn wait_for_task(&self) -> Option<Task> {
        let (sender, tasks) = sync_channel(0);
        self.0.lock().as_mut()?.push(sender);
        tasks.recv_timeout(IDLE).ok()
    }

    /// Ends the idle workers, and the others when they are done.
    pub(super) fn close(&self) {
        self.0.lock().take();
    }
}

/// Gives out the receive tokens of an acceptor.
///
/// # Errors
///
/// Where not even one thread can be started.
pub(super) fn receive_at(shared: &Arc<Shared>, acceptor: &Arc<Acceptor>) -> io::Result<()> {
    start_receiver(shared, acceptor)?;
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let mut more = 1..cores.clamp(2, RECEIVERS);
    more.all(|_| start_receiver(shared, acceptor).is_ok());
    Ok(())
}

fn start_receiver(shared: &Arc<Shared>, acceptor: &Arc<Acceptor>) -> io::Result<()> {
    let (of_task, acceptor) = (shared.clone(), acceptor.clone());
    let receive = move |_| receive(&of_task, &acceptor);
    let started = shared.workers.run(Box::new(receive));
    started.map_err(|(error, _)| error)
}

/// Receives and serves requests until the token has been passed, or the acceptor is closed.
fn receive(shared: &Arc<Shared>, acceptor: &Arc<Acceptor>) {
    let acceptor = Some(acceptor);
    let mut token = ReceiveToken { shared, acceptor };
    while let Some(acceptor) = token.acceptor {
        let Some(request) = next(shared, acceptor) else {
            return;
        };
        serve_connection(request, &mut token);
    }
}

/// The next request that can be served at once.
fn next(shared: &Shared, acceptor: &Acceptor) -> Option<tiny_http::Request> {
    let listener = &shared.listener;
    while !acceptor.is_closed() {
        let order = acceptor.order.lock();
        match acceptor.receive() {
            None => listener.wake(),
            Some(request) if request.url() == listener.heartbeat_path => {
                // Not dropped, which would answer it; no one reads the answer.
                drop(request.into_writer());
                listener.heartbeats_received.fetch_add(1, SeqCst);
            }
            Some(request) => {
                let (request, is_new) = shared.connections.admit(request);
                drop(order);
                if is_new {
                    listener.wake();
                }
                if request.is_some() {
                    return request;
                }
            }
        }
    }
    None
}

/// Serves a request, and then the requests that its connection has sent in the meantime. Not inlined, so that the frames of
/// what serves requests are not below the wait of a parked poll: the memory that a stack has once touched stays taken.
#[inline(never)]
fn serve_connection(request: tiny_http::Request, token: &mut ReceiveToken<'_>) {
    let peer = peer(&request);
    let mut next = Some(request);
    while let Some(request) = next {
        let serve = || exchange::serve(request, token);
        let is_done = catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(|_| {
            // tiny_http answers a request that is dropped with 500. The thread and its token go on.
            log::error!("serving a request panicked");
            true
        });
        if !is_done {
            return;
        }
        next = token.shared.connections.next(peer);
    }
}

/// A worker's right to receive requests at an acceptor.
pub(super) struct ReceiveToken<'a> {
    pub(super) shared: &'a Arc<Shared>,
    /// `None` once the token has been passed to another worker.
    acceptor: Option<&'a Arc<Acceptor>>,
}

impl ReceiveToken<'_> {
    /// Passes the token to another worker, so that this one may block.
    ///
    /// # Errors
    ///
    /// Where no thread can be started: then this worker has to go on receiving, and may not block.
    pub(super) fn pass(&mut self) -> io::Result<()> {
        if let Some(acceptor) = self.acceptor {
            start_receiver(self.shared, acceptor)?;
            self.acceptor = None;
        }
        Ok(())
    }

    /// Finishes the request of this client on another worker, which touches little of its stack, or here where this worker
    /// has no token. Returns `true` if it was done here.
    pub(super) fn finish(
        &self,
        peer: SocketAddr,
        finish: impl FnOnce(bool) + Send + 'static,
    ) -> bool {
        if self.acceptor.is_none() {
            finish(true);
            return true;
        }
        let shared = self.shared.clone();
        let task = move |may_block| {
            if catch_unwind(AssertUnwindSafe(|| finish(may_block))).is_err() {
                log::error!("finishing a request panicked");
            }
            if may_block && let Some(next) = shared.connections.next(peer) {
                let (shared, acceptor) = (&shared, None);
                serve_connection(next, &mut ReceiveToken { shared, acceptor });
            }
        };
        let Err((_, task)) = self.shared.workers.run(Box::new(task)) else {
            return false;
        };
        task.into_iter().for_each(|task| task(false));
        true
    }
}
