//! The servers that the tests in JavaScript talk to, and one by which they control these.

use std::sync::{Arc, Mutex};

use long_polling::server::{Cors, Handler, Request, Response, TimeoutAnswer};
use long_polling::{BrokerOptions, FilePersistorInfo, Server, ServerInfo};
use tempfile::TempDir;

use crate::support::{LIMIT, info, start};

/// Where the client is served.
pub(crate) const CLIENT: &str = "/long-polling.js";

pub(crate) struct Servers {
    pub(crate) plain: Arc<Server>,
    golongpoll: Server,
    guarded: Server,
    /// A server with a file, which a test stops and starts again on the same port.
    kept: Arc<Mutex<Kept>>,
    control: Server,
}

struct Kept {
    info: ServerInfo,
    server: Option<Server>,
    _folder: TempDir,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let broker = BrokerOptions::new().events_per_category(20);
        let plain = Arc::new(start(info().browser_client(CLIENT).broker(broker)));
        let golongpoll = start(info().timeout_answer(TimeoutAnswer::Golongpoll));
        let secret = || Handler::bearer_token("secret");
        let cors = Cors::new().origins(["https://a.example", "https://b.example"]);
        let guarded = info()
            .before_subscription(secret())
            .before_publish(secret());
        let guarded = start(guarded.cors(cors));
        let kept = Arc::new(Mutex::new(Kept::start()));
        let control = control(plain.clone(), kept.clone());
        Servers {
            plain,
            golongpoll,
            guarded,
            kept,
            control,
        }
    }

    /// The environment of the tests.
    pub(crate) fn urls(&self) -> Vec<(&'static str, String)> {
        let url = |server: &Server| format!("http://{}", server.local_addr());
        let kept = self.kept.lock().unwrap();
        vec![
            ("PLAIN", url(&self.plain)),
            ("GOLONGPOLL", url(&self.golongpoll)),
            ("GUARDED", url(&self.guarded)),
            ("KEPT", format!("http://{}", kept.info_address())),
            ("CONTROL", url(&self.control)),
        ]
    }
}

impl Kept {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = FilePersistorInfo::new(folder.path().join("events.log"));
        let info = info().file(file);
        let server = start(info.clone());
        Kept {
            info: info.address(server.local_addr().to_string()),
            server: Some(server),
            _folder: folder,
        }
    }

    fn info_address(&self) -> String {
        let server = self.server.as_ref().expect("a server");
        server.local_addr().to_string()
    }
}

/// `/stop` and `/start` the server with a file; `/parked` says how many polls the plain one has.
fn control(plain: Arc<Server>, kept: Arc<Mutex<Kept>>) -> Server {
    start(info().fallback(move |request: &Request| {
        let mut kept = kept.lock().unwrap();
        match request.path() {
            "/stop" => {
                let server = kept.server.take().expect("a server that runs");
                server.stop(LIMIT).expect("a clean stop");
            }
            "/start" => kept.server = Some(start(kept.info.clone())),
            "/parked" => {
                return Response::text(200, plain.statistics().parked.to_string());
            }
            other => return Response::text(404, other),
        }
        Response::text(200, "done")
    }))
}
