//! What the clients among the examples share: a server to talk to.

use long_polling::{Error, Server, ServerInfo};

/// The URL of the server to talk to. It is the program's argument, such as `http://localhost:8080`; without one, a
/// server with these settings is started here, on a free port, which stops when it is dropped.
pub(crate) fn server(info: ServerInfo) -> Result<(String, Option<Server>), Error> {
    if let Some(url) = std::env::args().nth(1) {
        return Ok((url, None));
    }
    let server = Server::start(info.address("127.0.0.1:0"))?;
    Ok((format!("http://{}", server.local_addr()), Some(server)))
}
