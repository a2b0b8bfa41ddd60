//! Gives the client examples a server.

use long_polling::{Error, Server, ServerInfo};

/// Returns the URL of a server: the program's argument, such as `http://localhost:8080`. Without an argument, starts a
/// server with these settings on a free port, and returns it too; dropping it stops it.
pub(crate) fn server(info: ServerInfo) -> Result<(String, Option<Server>), Error> {
    if let Some(url) = std::env::args().nth(1) {
        return Ok((url, None));
    }
    let server = Server::start(info.address("127.0.0.1:0"))?;
    Ok((format!("http://{}", server.local_addr()), Some(server)))
}
