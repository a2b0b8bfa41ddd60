//! [`WorkerPool`]: the threads that receive requests and answer them, as many as are needed.
//!
//! A few workers, as many as there are cores, wait for requests; each has a [`ReceiveToken`]. A worker that is about to
//! block on anything else (a body, a hook, an event) passes its receive token to another worker first: to the one that went
//! idle last, or to a new thread. It becomes idle itself when its request is answered. So some workers always receive,
//! however many subscribers are parked. And the workers that receive are few and warm: with thousands of threads waiting
//! for requests, publishes fall to a quarter, since each is then received by the thread that has slept longest.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::acceptor::Acceptor;

/// How long a worker stays idle before it ends.
const IDLE: Duration = Duration::from_secs(3);
/// A worker's stack, in bytes. Hooks and the fallback run on it. Only the pages that a thread touches cost memory.
const STACK: usize = 512 * 1024;

/// What the workers do with a request.
pub(super) trait Work: Send + Sync + 'static {
    fn handle(&self, request: tiny_http::Request, token: &mut ReceiveToken);
    /// The accept loop of an acceptor has ended.
    fn accept_failed(&self, acceptor: &Arc<Acceptor>, error: io::Error);
}

/// All workers, idle or not.
pub(super) struct WorkerPool {
    work: Arc<dyn Work>,
    /// The most workers that wait for requests at one acceptor.
    receivers: usize,
    idle: Mutex<Idle>,
    /// Requests being served. Sequentially consistent, as is the server's flag that it stops: a request that is counted
    /// after a stop has read 0 here finds the flag set. Not under a lock, of which each request would take two more.
    serving: AtomicUsize,
    /// Locked and notified when no request is being served any more.
    done: (Mutex<()>, Condvar),
    /// Connections of which a request is being served, each with the requests that came after it. A connection's answers
    /// leave in order, so a worker that served one of these at the same time would wait for the first.
    queues: Mutex<HashMap<SocketAddr, VecDeque<tiny_http::Request>>>,
}

#[derive(Default)]
struct Idle {
    /// The worker that went idle last is the last.
    workers: Vec<Arc<IdleWorker>>,
    closed: bool,
}

/// Where an idle worker waits for a job.
#[derive(Default)]
struct IdleWorker {
    job: Mutex<Option<Job>>,
    assigned: Condvar,
}

/// What a worker does next.
enum Job {
    /// Take a receive token at this acceptor.
    Receive(Arc<Acceptor>),
    /// Finish a request of this connection, for a worker that keeps its receive token.
    Finish(Task, Option<SocketAddr>),
    /// End.
    End,
}

/// The rest of a request. Its argument is `true` where it may block.
type Task = Box<dyn FnOnce(bool) + Send>;

impl IdleWorker {
    fn assign(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.assigned.notify_one();
    }

    /// Waits for a job; `None` is no deadline.
    fn wait(&self, deadline: Option<Instant>) -> Option<Job> {
        let mut job = self.job.lock();
        while job.is_none() {
            match deadline {
                None => self.assigned.wait(&mut job),
                Some(deadline) if self.assigned.wait_until(&mut job, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        job.take()
    }
}

/// A worker's right to receive requests at an acceptor.
pub(super) struct ReceiveToken {
    pool: Arc<WorkerPool>,
    /// `None` once the token has been passed to another worker.
    acceptor: Option<Arc<Acceptor>>,
    /// The connection of the request being served.
    remote: Option<SocketAddr>,
    /// Another worker finishes the request, and then serves the next requests of its connection.
    finishes_elsewhere: bool,
}

impl ReceiveToken {
    /// Passes the token to another worker, so that this one may block.
    ///
    /// # Errors
    ///
    /// Where no thread can be started: then this worker has to go on receiving, and may not block.
    pub(super) fn pass(&mut self) -> io::Result<()> {
        let Some(acceptor) = &self.acceptor else {
            return Ok(());
        };
        self.pool
            .assign(Job::Receive(acceptor.clone()))
            .map_err(|(error, _)| error)?;
        self.acceptor = None;
        Ok(())
    }

    /// Stops counting the request as in flight until the returned value is dropped. A stop does not wait for the rest of
    /// a body, which the client may never send. After dropping the value, the caller must check whether the server is
    /// stopping: a stop that has not waited for this request is visible then.
    pub(super) fn receiving(&self) -> Receiving {
        self.pool.served();
        Receiving(self.pool.clone())
    }

    /// The acceptor that the request came out of, unless the token has been passed.
    pub(super) fn acceptor(&self) -> Option<&Arc<Acceptor>> {
        self.acceptor.as_ref()
    }

    /// Has another worker finish the request, and keeps the token; this worker finishes it itself where it has no token.
    /// For waits as long and as many as those of parked polls this is better than to pass the token: the memory that a
    /// thread's stack has once touched stays taken, and a worker that only waits and answers touches little of it.
    pub(super) fn finish_elsewhere(&mut self, finish: impl FnOnce(bool) + Send + 'static) {
        if self.acceptor.is_none() {
            return finish(true);
        }
        self.pool.serving.fetch_add(1, SeqCst);
        let assigned = self.pool.assign(Job::Finish(Box::new(finish), self.remote));
        if let Err((_, Job::Finish(finish, _))) = assigned {
            // No thread could be started.
            finish(false);
            self.pool.served();
        } else {
            self.finishes_elsewhere = true;
        }
    }
}

/// Keeps a request from counting as in flight until it has been received whole; see [`ReceiveToken::receiving`].
pub(super) struct Receiving(Arc<WorkerPool>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.serving.fetch_add(1, SeqCst);
    }
}

impl WorkerPool {
    pub(super) fn new(work: Arc<dyn Work>) -> Arc<Self> {
        let receivers = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        let (idle, serving, done, queues) = Default::default();
        Arc::new(WorkerPool {
            work,
            receivers,
            idle,
            serving,
            done,
            queues,
        })
    }

    /// Gives out the receive tokens of an acceptor.
    ///
    /// # Errors
    ///
    /// Where not even one thread can be started.
    pub(super) fn receive_at(self: &Arc<Self>, acceptor: &Arc<Acceptor>) -> io::Result<()> {
        for receiver in 0..self.receivers {
            let assigned = self.assign(Job::Receive(acceptor.clone()));
            if let (0, Err((error, _))) = (receiver, assigned) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Assigns a job to the worker that went idle last, or to a new one.
    ///
    /// # Errors
    ///
    /// Gives the job back where no thread can be started.
    fn assign(self: &Arc<Self>, job: Job) -> Result<(), (io::Error, Job)> {
        if let Some(worker) = self.idle.lock().workers.pop() {
            worker.assign(job);
            return Ok(());
        }
        let worker = Arc::new(IdleWorker {
            job: Mutex::new(Some(job)),
            assigned: Condvar::new(),
        });
        let (pool, first) = (self.clone(), worker.clone());
        let thread = thread::Builder::new()
            .name("long-polling-worker".into())
            .stack_size(STACK);
        thread
            .spawn(move || pool.run(&first))
            .map(drop)
            .map_err(|error| {
                let job = worker.job.lock().take();
                (error, job.unwrap_or(Job::End))
            })
    }

    fn run(self: Arc<Self>, first: &IdleWorker) {
        let mut next = first.wait(None);
        while let Some(job) = next {
            match job {
                Job::Receive(acceptor) => self.receive(acceptor),
                Job::Finish(task, remote) => self.finish(task, remote),
                Job::End => return,
            }
            next = self.wait_for_job();
        }
    }

    fn token(self: &Arc<Self>, acceptor: Option<Arc<Acceptor>>) -> ReceiveToken {
        ReceiveToken {
            pool: self.clone(),
            acceptor,
            remote: None,
            finishes_elsewhere: false,
        }
    }

    /// Receives and serves requests until the token has been passed.
    fn receive(self: &Arc<Self>, acceptor: Arc<Acceptor>) {
        let mut token = self.token(Some(acceptor));
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

    // Not inlined, so that its frame, and the frames of what serves requests, are not below a wait for the next job.
    #[inline(never)]
    fn finish(self: &Arc<Self>, task: Task, remote: Option<SocketAddr>) {
        if catch_unwind(AssertUnwindSafe(|| task(true))).is_err() {
            log::error!("finishing a request panicked");
        }
        self.served();
        if let Some(next) = self.next_queued(remote) {
            let mut token = self.token(None);
            token.remote = remote;
            self.serve_connection(next, &mut token);
        }
    }

    /// Serves a request, and then the requests that its connection has sent in the meantime.
    fn serve_connection(&self, request: tiny_http::Request, token: &mut ReceiveToken) {
        let mut next = Some(request);
        while let Some(request) = next {
            self.serve(request, token);
            if std::mem::take(&mut token.finishes_elsewhere) {
                return;
            }
            next = self.next_queued(token.remote);
        }
    }

    fn serve(&self, request: tiny_http::Request, token: &mut ReceiveToken) {
        self.serving.fetch_add(1, SeqCst);
        if catch_unwind(AssertUnwindSafe(|| self.work.handle(request, token))).is_err() {
            // tiny_http answers a request that is dropped with 500. The thread and its token go on.
            log::error!("serving a request panicked");
        }
        self.served();
    }

    fn served(&self) {
        if self.serving.fetch_sub(1, SeqCst) == 1 {
            let (lock, done) = &self.done;
            drop(lock.lock());
            done.notify_all();
        }
    }

    /// Returns the request, unless an earlier one of its connection is still being served: then it goes to the queue.
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

    /// Waits for a job; `None` when the worker is to end.
    fn wait_for_job(&self) -> Option<Job> {
        let worker = Arc::new(IdleWorker::default());
        let mut idle = self.idle.lock();
        if idle.closed {
            return None;
        }
        idle.workers.push(worker.clone());
        drop(idle);
        worker.wait(Some(Instant::now() + IDLE)).or_else(|| {
            let mut idle = self.idle.lock();
            let at = idle
                .workers
                .iter()
                .position(|other| Arc::ptr_eq(other, &worker));
            if let Some(at) = at {
                idle.workers.remove(at);
                return None;
            }
            drop(idle);
            // The thread that removed this worker from the list is about to assign a job.
            worker.wait(None)
        })
    }

    /// Gives out another receive token where all are blocked, and returns the number of requests that the acceptor has
    /// given out. `before` is that number a while ago. Where no worker waits for requests and none was given out since,
    /// something blocks all workers with a token that was not expected to, such as a client that does not read its
    /// answer.
    pub(super) fn ensure_receiver(self: &Arc<Self>, acceptor: &Arc<Acceptor>, before: u64) -> u64 {
        let (waiting, given) = acceptor.progress();
        if waiting == 0
            && given == before
            && let Err((error, _)) = self.assign(Job::Receive(acceptor.clone()))
        {
            log::warn!("no thread could be started to receive requests: {error}");
        }
        given
    }

    /// Waits until no request is being served. Returns `false` if the deadline came first.
    pub(super) fn wait_until_done(&self, deadline: Instant) -> bool {
        let (lock, done) = &self.done;
        let mut lock = lock.lock();
        let is_done = || self.serving.load(SeqCst) == 0;
        while !is_done() && !done.wait_until(&mut lock, deadline).timed_out() {}
        is_done()
    }

    /// Ends the idle workers.
    pub(super) fn end_idle(&self) {
        let workers = std::mem::take(&mut self.idle.lock().workers);
        workers.iter().for_each(|worker| worker.assign(Job::End));
    }

    /// Ends the idle workers, and the others when they are done.
    pub(super) fn close(&self) {
        self.idle.lock().closed = true;
        self.end_idle();
    }
}
