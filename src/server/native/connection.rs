//! [`Connection`]: one client's connection: what its thread does with it, and how other threads end it.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Socket, TcpKeepalive};

use super::stream::is_timeout;
use crate::broker::Waiter;

/// The most bytes that are received behind the request of a parked poll.
const MAX_PIPELINED: usize = 4 * 1024;

pub(super) struct Connection {
    /// The socket, of any domain: std's calls for a TCP stream are those for any stream, and raise no SIGPIPE.
    pub(super) stream: TcpStream,
    pub(super) peer: Option<SocketAddr>,
    state: Mutex<State>,
}

/// What the connection's thread does. It sets each state but the last.
pub(super) enum State {
    /// It has waited since then for a request, or for the client to close its side.
    Idle(Instant),
    /// It receives a request, which has no effect yet.
    Receiving,
    /// It serves a request that has come whole, or answers one.
    Serving,
    /// It waits for events.
    Parked {
        waiter: Arc<Waiter>,
        /// What the client has sent, also since it parked: with that out of the way, its hang-up shows.
        received: Vec<u8>,
        /// The client has been looked at, so that the socket does not block.
        looked_at: bool,
    },
    /// Another thread has shut the connection down.
    Ended,
}

impl Connection {
    /// Sets the options of an accepted socket.
    pub(super) fn new(socket: Socket, peer: Option<SocketAddr>) -> io::Result<Self> {
        if peer.is_some() {
            // An answer leaves when it is written, not when the last one has been acknowledged.
            socket.set_tcp_nodelay(true)?;
            // A peer whose machine or network is gone is found out, even while its poll is parked.
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
        }
        Ok(Connection {
            stream: socket.into(),
            peer,
            state: Mutex::new(State::Idle(Instant::now())),
        })
    }

    /// Enters the next state. Returns `false` if another thread has ended the connection: then a request that has come in
    /// that instant has no effect.
    pub(super) fn enter(&self, next: State) -> bool {
        let mut state = self.state.lock();
        if matches!(*state, State::Ended) {
            return false;
        }
        *state = next;
        true
    }

    /// Enters the state of a parked poll. `received` has come after the request.
    pub(super) fn park(&self, waiter: Arc<Waiter>, received: Vec<u8>) {
        self.enter(State::Parked {
            waiter,
            received,
            looked_at: false,
        });
    }

    /// Returns what has come after the request by now.
    pub(super) fn unpark(&self) -> Vec<u8> {
        let parked = std::mem::replace(&mut *self.state.lock(), State::Serving);
        let State::Parked {
            received,
            looked_at,
            ..
        } = parked
        else {
            return Vec::new();
        };
        if looked_at && self.stream.set_nonblocking(false).is_err() {
            // No thread could wait on it.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        received
    }

    /// Ends the wait of a parked poll whose client has hung up. A client that has closed its own side only, and still waits
    /// for the answer, looks the same. Returns `false` if no poll is parked.
    pub(super) fn look_at_client(&self) -> bool {
        let mut state = self.state.lock();
        let State::Parked {
            waiter,
            received,
            looked_at,
        } = &mut *state
        else {
            return false;
        };
        *looked_at = *looked_at || self.stream.set_nonblocking(true).is_ok();
        let room = MAX_PIPELINED.saturating_sub(received.len());
        if *looked_at && room > 0 {
            match (&self.stream).take(room as u64).read_to_end(received) {
                Err(error) if is_timeout(&error) => {}
                Ok(count) if count == room => {}
                _ => waiter.hang_up(),
            }
        }
        true
    }

    /// How many bytes have come after the request of a parked poll; `None` before the first look at its client.
    #[cfg(test)]
    pub(super) fn received_while_parked(&self) -> Option<usize> {
        match &*self.state.lock() {
            State::Parked {
                received,
                looked_at: true,
                ..
            } => Some(received.len()),
            _ => None,
        }
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        match *self.state.lock() {
            State::Idle(since) => Some(since),
            _ => None,
        }
    }

    /// Shuts the connection down if it is idle, or receives a request and `receiving` is true. Then its thread ends.
    pub(super) fn end(&self, receiving: bool) -> bool {
        let mut state = self.state.lock();
        let ends = match *state {
            State::Idle(_) => true,
            State::Receiving => receiving,
            _ => false,
        };
        if ends {
            *state = State::Ended;
            // An error means that the client has closed the connection already.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        ends
    }
}
