//! [`WorkerPool`]: the threads that receive requests and answer them, as many as are needed.
//!
//! A few workers, as many as there are cores, wait for requests; each has a [`ReceiveToken`]. A worker that is about to
//! block on anything else (a body, a hook, an event) passes its token to another worker first. So some workers always
//! receive, however many subscribers are parked. And they are few and warm: with thousands of threads waiting for requests,
//! publishes fall to a quarter, since each is then received by the thread that has slept longest.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Backend;
use super::connections::Peer;
use super::listener::Acceptor;

/// How long a worker stays idle before it ends, and how long it waits for a request before it checks its acceptor.
const IDLE: Duration = Duration::from_secs(3);
/// An acceptor that is not the newest and has received nothing for this long, not even a heartbeat, has ended.
const LIFELESS: Duration = Duration::from_secs(120);
/// A worker's stack, in bytes. Hooks and the fallback run on it. Only the pages that a thread touches cost memory.
const STACK: usize = 512 * 1024;

/// What a worker does. The argument is `false` where no thread could be started, so that it may not block.
type Task = Box<dyn FnOnce(bool) + Send>;

/// The idle workers; the one that went idle last is the last.
#[derive(Default)]
pub(super) struct WorkerPool(Mutex<Vec<Arc<IdleWorker>>>);

#[derive(Default)]
struct IdleWorker {
    task: Mutex<Option<Task>>,
    assigned: Condvar,
}

impl IdleWorker {
    fn assign(&self, task: Task) {
        *self.task.lock() = Some(task);
        self.assigned.notify_one();
    }

    fn wait(&self, limit: Duration) -> Option<Task> {
        let mut task = self.task.lock();
        let is_idle = |task: &mut Option<Task>| task.is_none();
        self.assigned.wait_while_for(&mut task, is_idle, limit);
        task.take()
    }
}

impl WorkerPool {
    /// Runs a task on the worker that went idle last, or on a new one. If none can be started, it runs here, and this fails.
    fn run(self: &Arc<Self>, task: Task) -> io::Result<()> {
        let idle = self.0.lock().pop();
        let worker = idle.clone().unwrap_or_default();
        worker.assign(task);
        if idle.is_some() {
            return Ok(());
        }
        let (pool, first) = (self.clone(), worker.clone());
        let thread = thread::Builder::new().name("long-polling-worker".into());
        let started = thread.stack_size(STACK).spawn(move || {
            let mut next = first.wait(Duration::MAX);
            while let Some(task) = next {
                task(true);
                next = pool.wait_for_task();
            }
        });
        if started.is_err()
            && let Some(task) = worker.wait(Duration::ZERO)
        {
            task(false);
        }
        started.map(drop)
    }

    fn wait_for_task(&self) -> Option<Task> {
        let worker = Arc::new(IdleWorker::default());
        self.0.lock().push(worker.clone());
        worker.wait(IDLE).or_else(|| {
            let mut idle = self.0.lock();
            let at = idle.iter().position(|other| Arc::ptr_eq(other, &worker));
            if let Some(at) = at {
                idle.remove(at);
                return None;
            }
            drop(idle);
            // The thread that removed this worker from the list is about to assign a task.
            worker.wait(Duration::MAX)
        })
    }
}

/// Has workers receive requests at an acceptor. Fails where not even one thread can be started.
pub(super) fn receive_at(backend: &Arc<Backend>, acceptor: &Arc<Acceptor>) -> io::Result<()> {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    start_receiver(backend, acceptor)?;
    (1..cores.clamp(2, 8)).all(|_| start_receiver(backend, acceptor).is_ok());
    Ok(())
}

fn start_receiver(backend: &Arc<Backend>, acceptor: &Arc<Acceptor>) -> io::Result<()> {
    let (of_task, acceptor) = (backend.clone(), acceptor.clone());
    let receive = move |is_started| {
        if is_started {
            receive(&of_task, &acceptor);
        }
    };
    backend.workers.run(Box::new(receive))
}

/// Receives and serves requests until the token has been passed, or the acceptor has ended.
fn receive(backend: &Arc<Backend>, acceptor: &Arc<Acceptor>) {
    let mut token = ReceiveToken {
        backend,
        acceptor: Some(acceptor),
    };
    let listener = &backend.listener;
    while token.acceptor.is_some() {
        let mut last_request = acceptor.last_request.lock();
        if backend.is_closed.load(SeqCst) {
            return;
        }
        let received = acceptor.server.recv_timeout(IDLE);
        #[cfg(test)]
        if acceptor.is_lost.load(SeqCst) {
            return;
        }
        let Ok(Some(request)) = received else {
            let is_silent = last_request.elapsed() > LIFELESS.max(listener.idle_timeout);
            if is_silent && !Arc::ptr_eq(acceptor, &listener.newest()) {
                return;
            }
            if let Err(error) = received {
                let _ = acceptor.error.set(error);
                listener.wake();
            }
            continue;
        };
        *last_request = Instant::now();
        if request.url() == listener.heartbeat_path {
            // Not dropped, which would answer it.
            drop(request.into_writer());
            continue;
        }
        let (request, is_first_new) = backend.connections.admit(request);
        drop(last_request);
        if is_first_new {
            listener.wake();
        }
        if let Some(request) = request {
            let peer = request.remote_addr().copied();
            serve_connection(peer, &mut token, |token| (backend.serve)(request, token));
        }
    }
}

/// Serves a request, and then the requests that its connection has sent in the meantime. `first` returns `false` if another
/// worker finishes the first one.
fn serve_connection<'a>(
    peer: Peer,
    token: &mut ReceiveToken<'a>,
    first: impl FnOnce(&mut ReceiveToken<'a>) -> bool,
) {
    let panicked = |_| {
        // tiny_http answers a request that is dropped with 500. The thread and its token go on.
        log::error!("serving a request panicked");
        true
    };
    let mut is_done = catch_unwind(AssertUnwindSafe(|| first(token))).unwrap_or_else(panicked);
    while is_done && let Some(next) = token.backend.connections.next(peer) {
        let serve = || (token.backend.serve)(next, token);
        is_done = catch_unwind(AssertUnwindSafe(serve)).unwrap_or_else(panicked);
    }
}

/// A worker's right to receive requests at an acceptor.
pub(super) struct ReceiveToken<'a> {
    pub(super) backend: &'a Arc<Backend>,
    /// `None` once the token has been passed to another worker.
    acceptor: Option<&'a Arc<Acceptor>>,
}

impl ReceiveToken<'_> {
    /// Passes the token to another worker, so that this one may block. Fails where no thread can be started: then this worker
    /// has to go on receiving.
    pub(super) fn pass(&mut self) -> io::Result<()> {
        if let Some(acceptor) = self.acceptor {
            start_receiver(self.backend, acceptor)?;
            self.acceptor = None;
        }
        Ok(())
    }

    /// Finishes a request on another worker, or here where this worker has no token. Returns `true` if it was done here. The
    /// memory that a stack has once touched stays taken, and the other worker touches little of it.
    pub(super) fn finish(&self, peer: Peer, finish: impl FnOnce(bool) + Send + 'static) -> bool {
        if self.acceptor.is_none() {
            finish(true);
            return true;
        }
        let backend = self.backend.clone();
        let finished = self.backend.workers.run(Box::new(move |is_started| {
            if !is_started {
                return finish(false);
            }
            let mut token = ReceiveToken {
                backend: &backend,
                acceptor: None,
            };
            serve_connection(peer, &mut token, |_| {
                finish(true);
                true
            });
        }));
        finished.is_err()
    }
}
