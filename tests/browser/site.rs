//! [`Site`]: a server that a test stops and starts again at the same address.

use long_polling::{FilePersistorInfo, Server, ServerInfo};
use tempfile::TempDir;

use crate::support::{LIMIT, until};

pub(crate) struct Site {
    pub(crate) info: ServerInfo,
    server: Option<Server>,
    pub(crate) url: String,
    _folder: TempDir,
}

impl Site {
    /// Starts a server with a file, and with these settings.
    pub(crate) fn start(with: impl FnOnce(ServerInfo) -> ServerInfo) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = FilePersistorInfo::new(folder.path().join("events.log"));
        let info = with(ServerInfo::new("127.0.0.1:0").file(file));
        let server = Server::start(info.clone()).unwrap();
        let address = server.local_addr().to_string();
        Site {
            url: format!("http://{address}/"),
            info: info.address(address),
            server: Some(server),
            _folder: folder,
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a server that runs")
    }

    pub(crate) fn stop(&mut self) {
        let server = self.server.take().expect("a server that runs");
        server.stop(LIMIT).unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        // Connections of the browser may still hold the port.
        until("the port is free", || {
            self.server = Server::start(self.info.clone()).ok();
            self.server.is_some()
        });
    }
}
