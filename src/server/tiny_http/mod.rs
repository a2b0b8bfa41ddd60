//! The HTTP backend on tiny_http: it alone reads and writes connections, and makes tiny_http safe to use.

pub(in crate::server) mod acceptor;
pub(in crate::server) mod body;
pub(in crate::server) mod chunks;
pub(in crate::server) mod connections;
pub(in crate::server) mod drain;
pub(in crate::server) mod head;
pub(in crate::server) mod listener;
pub(in crate::server) mod maintenance;
pub(in crate::server) mod peers;
pub(in crate::server) mod probe;
pub(in crate::server) mod workers;
