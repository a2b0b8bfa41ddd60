//! [`Acceptor`]: the thread that accepts connections and starts a thread for each. No error ends it but the stop.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::Shared;
use super::connection::Connection;
use super::exchange;
use crate::error::{Error, ErrorKind as Kind};
use crate::server::cors::{self, Grant};
use crate::server::info::OnFailure;
use crate::server::render::Persistence;
use crate::server::response::Response;

/// The pause after an error, unless a connection is closed before.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Acceptor {
    shared: Arc<Shared>,
    /// Since when no connection could be accepted.
    failing: Option<Instant>,
    on_failure: Option<OnFailure>,
}

impl Acceptor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Acceptor {
            on_failure: shared.service.info.on_failure.clone(),
            shared,
            failing: None,
        }
    }

    /// Accepts connections until the stop.
    pub(super) fn run(mut self, accept: impl Fn() -> io::Result<(Socket, Option<SocketAddr>)>) {
        let connections = self.shared.connections.clone();
        loop {
            let accepted = accept();
            if connections.are_closing() {
                return;
            }
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.fail(&error);
                    // Both give descriptors back.
                    self.shared.maintenance.close_refused();
                    connections.end_idlest();
                    connections.wait_for_one(PAUSE);
                }
            }
        }
    }

    /// Starts the thread of a new connection, or refuses it.
    fn take(&mut self, socket: Socket, peer: Option<SocketAddr>) {
        let connections = self.shared.connections.clone();
        let connection = match Connection::new(socket, peer, &self.shared.service.info) {
            Ok(connection) => Arc::new(connection),
            // Its client has gone already.
            Err(error) => return log::debug!("a connection from {peer:?} ended: {error}"),
        };
        if !connections.make_room() {
            return self.refuse(
                connection,
                "the server has all the connections that it may have",
            );
        }
        let mut started = self.start(&connection);
        if started.is_err() && connections.end_idlest() {
            connections.wait_for_one(PAUSE);
            started = self.start(&connection);
        }
        match started {
            Ok(()) => self.recover(),
            Err(error) => {
                self.fail(&error);
                self.refuse(connection, "no thread can be had to serve this");
            }
        }
    }

    fn start(&self, connection: &Arc<Connection>) -> io::Result<()> {
        let shared = self.shared.clone();
        let serve = move |connection: &Connection| exchange::serve(&shared, connection);
        self.shared.connections.start(connection, serve)
    }

    /// Answers 503 without waiting for the client.
    fn refuse(&self, connection: Arc<Connection>, why: &str) {
        let service = &self.shared.service;
        service.broker.count_refused();
        service.traffic.count_refused_connection();
        let refusal = Response::busy(&format!("{why}; try again"));
        service.traffic.count_answer(refusal.status);
        let cors = service.info.cors.as_ref();
        let refusal = cors::with_fields(refusal, cors, &Grant::default());
        let answer = refusal.render(Persistence::Close, false);
        // No thread has it: this is the only reference.
        if let Some(Connection { mut stream, .. }) = Arc::into_inner(connection)
            && stream.set_nonblocking(true).is_ok()
            && stream.write_all(&answer).is_ok()
        {
            self.shared.maintenance.keep(stream);
        }
    }

    /// Records that no connection can be accepted. Calls the program's callback after the restore timeout.
    fn fail(&mut self, error: &io::Error) {
        let since = *self.failing.get_or_insert_with(|| {
            log::warn!("accepting connections failed: {error}; the server tries again");
            Instant::now()
        });
        if since.elapsed() >= self.shared.service.info.restore_timeout
            && let Some(on_failure) = self.on_failure.take()
        {
            let message = format!(
                "no connection could be accepted for {:?}: {error}; the server tries again; free descriptors, threads or \
                 memory, or allow the process more",
                since.elapsed()
            );
            on_failure.call(Error::new(Kind::ServingFailed, message));
        }
    }

    fn recover(&mut self) {
        if let Some(since) = self.failing.take() {
            log::warn!("connections are accepted again after {:?}", since.elapsed());
        }
    }
}

/// True for an error that concerns one connection, whose client has given up, and not the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
