//! The HTTP server around a [`Broker`]: [`Server`], [`ServerInfo`], and what an embedding program hooks in.
//!
//! `listener`, with its `acceptor`s, listens and tames tiny_http; `workers` has the threads; `endpoints` says what is asked, and
//! `answers` what is answered; `head`, `body` and `reply` read the one and render the other; `maintenance` looks after all of them.

mod answers;
mod endpoints;
mod hooks;
mod info;
mod reply;
mod tiny_http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use self::tiny_http::acceptor::Acceptor;
use self::tiny_http::connections::{BadConnections, ParkedPeers};
use self::tiny_http::drain::UnreadBodies;
use self::tiny_http::listener::Listener;
use self::tiny_http::maintenance::Maintenance;
use self::tiny_http::workers::{ReceiveToken, Work, WorkerPool};
use crate::broker::{Batch, Broker, Clock, Statistics};
use crate::error::{Error, ErrorKind};
use crate::position::{Cursor, EventId};
use crate::wire::Categories;

pub use hooks::{Fallback, Handler, Request, Response};
pub use info::{PollWithoutCursor, ServerInfo, TimeoutAnswer};

/// A long-polling server.
///
/// ```
/// use std::time::Duration;
/// use long_polling::{Cursor, Server, ServerInfo};
///
/// let server = Server::start(ServerInfo { address: "127.0.0.1:0".into(), ..ServerInfo::default() }, None, None)?;
/// println!("listening on http://{}", server.local_addr());
///
/// server.publish("notifications", "from within the program, as well as over HTTP")?;
/// let batch = server.subscribe("notifications", Cursor::Oldest, Duration::from_secs(1))?;
/// assert_eq!(batch.events().len(), 1);
///
/// server.stop(Duration::from_secs(10))?;
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// Dropping a server stops it, but waits half a second for requests in flight at most; call [`stop`](Server::stop) to
/// be told what came of it.
///
/// # Connections to itself
///
/// The server connects to its own address several times a second, since tiny_http may leave connections that arrive in a
/// burst waiting for one another. Serving does not depend on it: where a firewall or another policy forbids it, the server
/// logs one warning and goes on.
///
/// # `panic = "abort"`
///
/// A program that embeds a server must not set `panic = "abort"` in its profile: tiny_http panics in the thread of a
/// connection where a client causes it, for example by a connection that is reset at once, and that would end the process.
pub struct Server {
    inner: Arc<Inner>,
    workers: Arc<WorkerPool>,
    /// Held while stopping; true when that is done.
    stopped: Mutex<bool>,
}

/// What all threads of a server share.
struct Inner {
    info: ServerInfo,
    broker: Broker,
    listener: Listener,
    stopping: AtomicBool,
    parked: ParkedPeers,
    bad_connections: BadConnections,
    unread: Arc<UnreadBodies>,
}

impl Server {
    /// Starts a server. It listens when this returns. With a [`file`](ServerInfo::file) or a
    /// [`store`](ServerInfo::store), it holds the events kept there.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`](ErrorKind::InvalidSetting), [`Listen`](ErrorKind::Listen) or [`File`](ErrorKind::File), each
    /// naming the setting and the reason, and those of [`Store::start`](crate::Store::start).
    pub fn start(info: ServerInfo) -> Result<Self, Error> {
        Server::start_with_clock(info, Clock::System)
    }

    pub(crate) fn start_with_clock(info: ServerInfo, clock: Clock) -> Result<Self, Error> {
        info.check()?;
        // Clients that connect while events are read wait for that.
        let (listener, acceptor) = Listener::open(&info)?;
        let broker = info.open_broker(clock);
        let inner = Arc::new(Inner {
            broker: broker.inspect_err(|_| listener.withdraw())?,
            info,
            listener,
            stopping: AtomicBool::new(false),
            parked: ParkedPeers::default(),
            bad_connections: BadConnections::default(),
            unread: Arc::default(),
        });
        let workers = WorkerPool::new(Arc::new(inner.clone()));
        let no_thread = |error: std::io::Error| {
            inner.listener.withdraw();
            Error::new(ErrorKind::Listen, "no thread can be had").with_source(error)
        };
        workers.receive_at(&acceptor).map_err(no_thread)?;
        Maintenance::start(inner.clone(), workers.clone()).map_err(no_thread)?;
        log::info!("the server listens on http://{}", inner.listener.address());
        Ok(Server {
            inner,
            workers,
            stopped: Mutex::new(false),
        })
    }

    /// Where the server listens: the port that was taken, where port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.listener.address()
    }

    /// The broker behind the endpoints, for other threads of the program.
    pub fn broker(&self) -> &Broker {
        &self.inner.broker
    }

    /// Publishes without HTTP; see [`Broker::publish`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::publish`].
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        self.broker().publish(category, data)
    }

    /// Waits for events without HTTP; see [`Broker::subscribe`].
    ///
    /// # Errors
    ///
    /// Those of [`Broker::subscribe`].
    pub fn subscribe(
        &self,
        categories: impl Into<Categories>,
        cursor: Cursor,
        timeout: Duration,
    ) -> Result<Arc<Batch>, Error> {
        self.broker().subscribe(categories, cursor, timeout)
    }

    /// What the server has done and holds.
    pub fn statistics(&self) -> Statistics {
        self.broker().statistics()
    }

    /// Stops the server: no more connections are taken, parked subscribers are answered at once as if they had timed
    /// out, requests in flight may finish until the timeout, then the file is flushed. A request whose body has not been
    /// received whole is not in flight: the stop does not wait for the rest, and what arrives of it later is refused. When
    /// this returns, the port can be listened on again. Connections that clients keep open are told to close when they
    /// are used again, and end after [`idle_timeout`](field@ServerInfo::idle_timeout), or with the process, where they
    /// are not. Stopping twice is fine: the second time waits for a file, or another store, that was not done in time.
    ///
    /// # Errors
    ///
    /// [`StopTimeout`](ErrorKind::StopTimeout) where requests were still in flight at the timeout: everything else is
    /// done then, and they can't publish any more; and where the file needs longer.
    /// [`File`](ErrorKind::File) where events could not be written.
    pub fn stop(&self, timeout: Duration) -> Result<(), Error> {
        let mut stopped = self.stopped.lock();
        if std::mem::replace(&mut *stopped, true) {
            // What is not in the file yet may be by now.
            return self.inner.broker.stop(timeout);
        }
        let now = Instant::now();
        let deadline = now
            .checked_add(timeout)
            .unwrap_or(now + Duration::from_secs(1 << 32));
        let Inner {
            broker,
            listener,
            stopping,
            ..
        } = &*self.inner;
        log::info!(
            "the server on http://{} stops; requests in flight have {timeout:?} to finish",
            listener.address()
        );
        stopping.store(true, Relaxed);
        let serves_on = listener.shut();
        broker.release();
        let done = self.workers.wait_until_done(deadline);
        // The file is flushed even where requests took all the time that there was.
        let soon = Instant::now() + Duration::from_secs(1);
        let flushed = broker.stop(deadline.max(soon).saturating_duration_since(Instant::now()));
        if !serves_on {
            listener.close();
            self.workers.close();
        }
        listener.wait_until_free(deadline.max(soon));
        flushed?;
        if !done {
            let message = format!(
                "requests were still in flight after {timeout:?}; they can't publish any more"
            );
            return Err(Error::new(ErrorKind::StopTimeout, message));
        }
        log::info!(
            "the server on http://{} stopped after {:?}",
            listener.address(),
            now.elapsed()
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Duration::from_millis(500)) {
            log::warn!(
                "a server was dropped, and stopping it said: {}",
                error.report()
            );
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

impl Work for Arc<Inner> {
    fn handle(&self, request: ::tiny_http::Request, token: &mut ReceiveToken) {
        self.listener
            .came(request.remote_addr().copied(), token.acceptor());
        endpoints::answer(self, request, token);
    }

    fn accept_failed(&self, acceptor: &Arc<Acceptor>, error: std::io::Error) {
        self.listener.accept_failed(acceptor, &error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn info() -> ServerInfo {
        ServerInfo::new("127.0.0.1:0")
    }

    /// The status of a publish on a connection of its own; `None` where it is not answered in ten seconds.
    fn publish(server: &Server) -> Option<u16> {
        let address = server.local_addr();
        let limit = Duration::from_secs(10);
        let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).unwrap();
        let body = r#"{"category":"c","data":1}"#;
        let length = body.len();
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < end, "{what}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    #[test]
    fn the_failure_callback_runs_once_when_serving_can_not_be_restored_and_serving_is_tried_again()
    {
        let restore_timeout = Duration::from_millis(1500);
        let (tell, told) = bounded(1);
        let info = info()
            .restore_timeout(restore_timeout)
            .on_failure(move |error| tell.send(error).unwrap_or_default());
        let server = Server::start(info).unwrap();
        let broken = Instant::now();
        server.inner.listener.fail_gates(true);
        server.inner.listener.break_down();
        let early = told.recv_timeout(restore_timeout - Duration::from_millis(200));
        assert_eq!(early.map(drop), Err(RecvTimeoutError::Timeout));
        let error = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(broken.elapsed() >= restore_timeout);
        assert_eq!(error.kind(), ErrorKind::ServingFailed);
        // What is in process goes on.
        server.publish("a", "x").unwrap();
        server.inner.listener.fail_gates(false);
        until("served again", || publish(&server) == Some(200));
        server.stop(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn a_listening_socket_that_was_shut_down_listens_again() {
        let server = Server::start(info()).unwrap();
        server.inner.listener.break_down();
        until("served again", || publish(&server) == Some(200));
        server.stop(Duration::from_secs(5)).unwrap();
    }

    /// A server that reports a failure after half a second, and the errors that its failure callback got.
    fn server_with_short_timeouts(idle_timeout: Duration) -> (Server, Receiver<Error>) {
        let (tell, told) = bounded(1);
        let failed = Box::new(move |error: Error| tell.send(error).unwrap_or_default());
        let info = info()
            .restore_timeout(Duration::from_millis(500))
            .idle_timeout(idle_timeout);
        (Server::start(info.on_failure(failed)).unwrap(), told)
    }

    /// The same, but it can't connect to itself.
    fn server_without_probes(errno: i32, idle_timeout: Duration) -> (Server, Receiver<Error>) {
        let (server, failed) = server_with_short_timeouts(idle_timeout);
        server.inner.listener.forbid_probes(errno);
        (server, failed)
    }

    /// EPERM, EACCES, EINVAL, ENETUNREACH, ETIMEDOUT, ECONNREFUSED and EADDRNOTAVAIL of Linux.
    const PROBES_FAIL: [i32; 7] = [1, 13, 22, 101, 110, 111, 99];

    #[test]
    fn a_server_that_can_not_connect_to_itself_serves_on_and_reports_no_failure() {
        let all: Vec<_> = PROBES_FAIL
            .iter()
            .map(|errno| server_without_probes(*errno, Duration::from_secs(5)))
            .collect();
        for _ in 0..3 {
            for (server, failed) in &all {
                assert_eq!(publish(server), Some(200));
                let failed = failed.recv_timeout(Duration::from_millis(100));
                assert_eq!(failed.map(drop), Err(RecvTimeoutError::Timeout));
            }
        }
        for (server, failed) in all {
            assert_eq!(publish(&server), Some(200));
            assert_eq!(server.inner.listener.acceptors().len(), 1);
            server.stop(Duration::from_secs(5)).unwrap();
            assert!(failed.try_recv().is_err());
        }
    }

    #[test]
    fn an_accept_loop_that_ended_silently_is_replaced_with_and_without_probes() {
        let (with, with_failed) = server_with_short_timeouts(Duration::from_secs(60));
        let (without, without_failed) = server_without_probes(1, Duration::from_secs(60));
        for server in [&with, &without] {
            assert_eq!(publish(server), Some(200));
            server.inner.listener.end_accept_loops_silently();
            until("served again", || publish(server) == Some(200));
        }
        with.stop(Duration::from_secs(5)).unwrap();
        without.stop(Duration::from_secs(5)).unwrap();
        assert!(with_failed.try_recv().is_err());
        assert!(without_failed.try_recv().is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn probes_leave_no_connection_in_time_wait() {
        let server = Server::start(info()).unwrap();
        let acceptor = server.inner.listener.acceptors().remove(0);
        until("ten probes", || acceptor.heartbeats() >= 10);
        let port = format!(":{:04X}", server.local_addr().port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let waiting = table.lines().filter(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            fields[3] == "06" && fields[1..3].iter().any(|address| address.ends_with(&port))
        });
        assert_eq!(waiting.count(), 0);
        drop(acceptor);
        server.stop(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn an_accept_that_timed_out_is_followed_by_another_and_is_no_failure() {
        let (server, failed) = server_without_probes(1, Duration::from_millis(300));
        let first = server.inner.listener.acceptors().remove(0);
        for _ in 0..3 {
            let acceptors = server.inner.listener.acceptors();
            let newest = acceptors.last().unwrap().clone();
            until("another acceptor", || {
                let acceptors = server.inner.listener.acceptors();
                acceptors
                    .last()
                    .is_some_and(|last| !Arc::ptr_eq(last, &newest))
            });
            assert_eq!(publish(&server), Some(200));
        }
        until("the first acceptor is closed", || {
            let acceptors = server.inner.listener.acceptors();
            !acceptors
                .iter()
                .any(|acceptor| Arc::ptr_eq(acceptor, &first))
        });
        drop(first);
        server.stop(Duration::from_secs(5)).unwrap();
        assert!(failed.try_recv().is_err());
    }
}
