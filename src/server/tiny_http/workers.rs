//! The workers: the threads that receive requests and answer them, as many as there is waiting to be done.
//!
//! A few of them, as many as there are cores, wait for requests; each holds a [`ReceiveToken`]. One that is about to wait for
//! anything else (a body, a hook, an event) passes its token on first, to the thread that went idle last or to a new one,
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

use super::acceptor::Acceptor;

/// How long a thread stays idle before it ends.
const IDLE: Duration = Duration::from_secs(3);
/// Only the pages that a thread touches cost memory. Hooks and the fallback run here.
const STACK: usize = 512 * 1024;

/// What the workers does with a request.
pub(in crate::server) trait Work: Send + Sync + 'static {
    fn handle(&self, request: tiny_http::Request, token: &mut ReceiveToken);
    /// The accept loop of a acceptor has ended.
    fn accept_failed(&self, acceptor: &Arc<Acceptor>, error: io::Error);
}

/// All threads that serve requests.
pub(in crate::server) struct WorkerPool {
    work: Arc<dyn Work>,
    /// The most threads that wait for requests at one acceptor.
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
    idle_workers: Vec<Arc<IdleWorker>>,
    /// Requests being served.
    serving: usize,
    closed: bool,
}

/// Where an idle thread waits to be called.
#[derive(Default)]
struct IdleWorker {
    call: Mutex<Option<Job>>,
    called: Condvar,
}

/// What a thread is called to.
enum Job {
    /// Take a token at this acceptor.
    ReceiveToken(Arc<Acceptor>),
    /// Finish a request of this connection, whose server did not want to wait.
    Finish(Task, Option<SocketAddr>),
    /// End.
    Leave,
}

/// The rest of a request; told whether it may wait.
type Task = Box<dyn FnOnce(bool) + Send>;

impl IdleWorker {
    fn call(&self, call: Job) {
        *self.call.lock() = Some(call);
        self.called.notify_one();
    }

    /// Waits for a call; `None` is no deadline.
    fn wait(&self, deadline: Option<Instant>) -> Option<Job> {
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

/// A thread's token to receive requests at a acceptor.
pub(in crate::server) struct ReceiveToken {
    workers: Arc<WorkerPool>,
    /// `None` once it has been passed.
    acceptor: Option<Arc<Acceptor>>,
    /// The connection of the request being served.
    remote: Option<SocketAddr>,
    /// Another thread finishes the request, and serves those that came after it on its connection.
    handed_over: bool,
}

impl ReceiveToken {
    /// Hands the token to another thread, so that this one may wait for whatever it likes.
    ///
    /// # Errors
    ///
    /// Where no thread can be had: then this one has to go on receiving, and may not wait.
    pub(in crate::server) fn pass(&mut self) -> io::Result<()> {
        let Some(acceptor) = &self.acceptor else {
            return Ok(());
        };
        self.workers
            .call(Job::ReceiveToken(acceptor.clone()))
            .map_err(|(error, _)| error)?;
        self.acceptor = None;
        Ok(())
    }

    /// Stops counting the request as in flight until the returned value is dropped. A stop does not wait for the rest of
    /// a body, which the client may never send. After dropping the value, the caller must check whether the server is
    /// stopping: a stop that has not waited for this request is visible then.
    pub(in crate::server) fn receiving(&self) -> Receiving {
        self.workers.served();
        Receiving(self.workers.clone())
    }

    /// The acceptor that the request came out of, unless the token has been passed.
    pub(in crate::server) fn acceptor(&self) -> Option<&Arc<Acceptor>> {
        self.acceptor.as_ref()
    }

    /// Has another thread finish the request, and keeps the token; this thread does it itself where it has no token. For
    /// waits as long and as many as those of parked polls this is better than to pass the token: the memory that a
    /// thread's stack has once touched stays taken, and whoever only waits and answers touches little of it.
    pub(in crate::server) fn finish_elsewhere(
        &mut self,
        finish: impl FnOnce(bool) + Send + 'static,
    ) {
        if self.acceptor.is_none() {
            return finish(true);
        }
        self.workers.idle.lock().serving += 1;
        if let Err((_, Job::Finish(finish, _))) = self
            .workers
            .call(Job::Finish(Box::new(finish), self.remote))
        {
            // No thread can be had.
            finish(false);
            self.workers.served();
        } else {
            self.handed_over = true;
        }
    }
}

/// Takes a request off those in flight for as long as it has not been received whole; see [`ReceiveToken::receiving`].
pub(in crate::server) struct Receiving(Arc<WorkerPool>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.idle.lock().serving += 1;
    }
}

impl WorkerPool {
    pub(in crate::server) fn new(work: Arc<dyn Work>) -> Arc<Self> {
        let receivers = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        let (idle, done, queues) = Default::default();
        Arc::new(WorkerPool {
            work,
            receivers,
            idle,
            done,
            queues,
        })
    }

    /// Has a acceptor's requests received.
    ///
    /// # Errors
    ///
    /// Where not one thread can be had.
    pub(in crate::server) fn receive_at(
        self: &Arc<Self>,
        acceptor: &Arc<Acceptor>,
    ) -> io::Result<()> {
        for receiver in 0..self.receivers {
            if let (0, Err((error, _))) = (receiver, self.call(Job::ReceiveToken(acceptor.clone())))
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Calls the thread that went idle last, or a new one; gives the call back where no thread can be had.
    fn call(self: &Arc<Self>, call: Job) -> Result<(), (io::Error, Job)> {
        if let Some(idle_worker) = self.idle.lock().idle_workers.pop() {
            idle_worker.call(call);
            return Ok(());
        }
        let idle_worker = Arc::new(IdleWorker {
            call: Mutex::new(Some(call)),
            called: Condvar::new(),
        });
        let (workers, first) = (self.clone(), idle_worker.clone());
        let thread = thread::Builder::new()
            .name("long-polling-workers".into())
            .stack_size(STACK);
        thread
            .spawn(move || workers.run(&first))
            .map(drop)
            .map_err(|error| {
                let call = idle_worker.call.lock().take();
                (error, call.unwrap_or(Job::Leave))
            })
    }

    fn run(self: Arc<Self>, first: &IdleWorker) {
        let mut call = first.wait(None);
        while let Some(what) = call {
            match what {
                Job::ReceiveToken(acceptor) => self.receive(acceptor),
                Job::Finish(job, remote) => self.finish(job, remote),
                Job::Leave => return,
            }
            call = self.sit();
        }
    }

    /// Receives and serves requests for as long as the token is not passed.
    fn receive(self: &Arc<Self>, acceptor: Arc<Acceptor>) {
        let mut token = ReceiveToken {
            workers: self.clone(),
            acceptor: Some(acceptor),
            remote: None,
            handed_over: false,
        };
        while let Some(acceptor) = &token.acceptor {
            let next = acceptor.next(
                self.receivers,
                |request| self.unless_queued(request),
                |error| self.work.accept_failed(acceptor, error),
            );
            let Some(request) = next else { return };
            token.remote = request.remote_addr().copied();
            self.serve_connection(request, &mut token);
        }
    }

    // Not inlined, so that its frame, and those of whatever serves requests, are not below a wait for the next call.
    #[inline(never)]
    fn finish(self: &Arc<Self>, job: Task, remote: Option<SocketAddr>) {
        if catch_unwind(AssertUnwindSafe(|| job(true))).is_err() {
            log::error!("finishing a request panicked");
        }
        self.served();
        if let Some(next) = self.next_queued(remote) {
            self.serve_connection(
                next,
                &mut ReceiveToken {
                    workers: self.clone(),
                    acceptor: None,
                    remote,
                    handed_over: false,
                },
            );
        }
    }

    /// Serves a request, and then those that its connection has sent meanwhile.
    fn serve_connection(&self, request: tiny_http::Request, token: &mut ReceiveToken) {
        let mut next = Some(request);
        while let Some(request) = next {
            self.serve(request, token);
            if std::mem::take(&mut token.handed_over) {
                return;
            }
            next = self.next_queued(token.remote);
        }
    }

    fn serve(&self, request: tiny_http::Request, token: &mut ReceiveToken) {
        self.idle.lock().serving += 1;
        if catch_unwind(AssertUnwindSafe(|| self.work.handle(request, token))).is_err() {
            // tiny_http answers a request that is dropped with 500. The thread and its token go on.
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
    fn sit(&self) -> Option<Job> {
        let idle_worker = Arc::new(IdleWorker::default());
        let mut idle = self.idle.lock();
        if idle.closed {
            return None;
        }
        idle.idle_workers.push(idle_worker.clone());
        drop(idle);
        idle_worker.wait(Some(Instant::now() + IDLE)).or_else(|| {
            let mut idle = self.idle.lock();
            let at = idle
                .idle_workers
                .iter()
                .position(|other| Arc::ptr_eq(other, &idle_worker));
            if let Some(at) = at {
                idle.idle_workers.remove(at);
                return None;
            }
            drop(idle);
            // Whoever took the idle_worker out is about to call.
            idle_worker.wait(None)
        })
    }

    /// Sees to it that somebody receives at a acceptor. `before` is its progress a while ago: where nobody waits for
    /// requests and none was given out since, all who have a token there are held up by something that was not expected
    /// to wait, such as a client that does not read its answer.
    pub(in crate::server) fn ensure_receiver(
        self: &Arc<Self>,
        acceptor: &Arc<Acceptor>,
        before: u64,
    ) -> u64 {
        let (waiting, given) = acceptor.progress();
        if waiting == 0
            && given == before
            && let Err((error, _)) = self.call(Job::ReceiveToken(acceptor.clone()))
        {
            log::warn!("no thread can be had to receive requests: {error}");
        }
        given
    }

    /// Waits until no request is being served; false where the deadline came first.
    pub(in crate::server) fn wait_until_done(&self, deadline: Instant) -> bool {
        let mut idle = self.idle.lock();
        while idle.serving > 0 && !self.done.wait_until(&mut idle, deadline).timed_out() {}
        idle.serving == 0
    }

    /// Ends the idle threads.
    pub(in crate::server) fn dismiss_idle(&self) {
        let idle_workers = std::mem::take(&mut self.idle.lock().idle_workers);
        idle_workers
            .iter()
            .for_each(|idle_worker| idle_worker.call(Job::Leave));
    }

    /// Ends the idle threads, and the others when they are done.
    pub(in crate::server) fn close(&self) {
        self.idle.lock().closed = true;
        self.dismiss_idle();
    }
}
