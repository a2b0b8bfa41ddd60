//! [`Acceptor`]: the thread that accepts connections and starts a thread for each. No error ends it but the stop.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::Socket;

use super::connection::Connection;
use super::connections::Connections;
use super::exchange::{linger, serve};
use crate::server::accept_failure::AcceptFailure;
use crate::server::cors::Grant;
use crate::server::ready::Ready;
use crate::server::render::Persistence;
use crate::server::response::Response;

/// The pause after an error, unless a connection is closed before.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Acceptor {
    connections: Arc<Connections>,
    failure: AcceptFailure,
}

impl Acceptor {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        Acceptor {
            failure: AcceptFailure::new(&connections.service.info),
            connections,
        }
    }

    /// Accepts connections until the stop.
    pub(super) fn run(mut self, accept: impl Fn() -> io::Result<(Socket, Option<SocketAddr>)>) {
        loop {
            let accepted = accept();
            if self.connections.service.is_stopping() {
                return;
            }
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer),
                // Of one connection, whose client has given up, and not of the next one.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted
                            | ErrorKind::ConnectionReset
                            | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    self.failure.begin(&error);
                    // This gives a descriptor back.
                    if !self.connections.end_one() {
                        thread::park_timeout(PAUSE);
                    }
                }
            }
        }
    }

    /// Starts the thread of a new connection, or refuses it.
    fn take(&mut self, socket: Socket, peer: Option<SocketAddr>) {
        let connections = &self.connections;
        let connection = match Connection::new(socket, peer) {
            Ok(connection) => Arc::new(connection),
            // Its client has gone already.
            Err(error) => return log::debug!("a connection from {peer:?} ended: {error}"),
        };
        if !connections.make_room() {
            return self.refuse(
                &connection,
                "the server has all the connections that it may have",
            );
        }
        let mut started = connections.start(&connection, serve);
        if started.is_err() && connections.end_one() {
            started = connections.start(&connection, serve);
        }
        if let Err(error) = started {
            self.failure.begin(&error);
            self.refuse(&connection, "no thread can be had to serve this");
        } else {
            self.failure.end();
        }
    }

    /// Answers 503. A new connection has room for that, so that this does not wait for the client.
    fn refuse(&self, connection: &Arc<Connection>, why: &str) {
        let service = &self.connections.service;
        service.broker.count_refused();
        service.traffic.count_refused_connection();
        let refusal = Ready::from(Response::busy(&format!("{why}; try again")));
        let answer = refusal.render(service, &Grant::default(), Persistence::Close, false);
        if (&connection.stream).write_all(&answer).is_ok() {
            let _ = self.connections.start(connection, linger);
        }
    }
}
