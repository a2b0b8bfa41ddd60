//! The settings for web pages: which may use the server, by which hosts, the client that it serves to them, and
//! their streams.

use std::time::Duration;

use super::browser::BrowserClient;
use super::cors::Cors;
use super::info::ServerInfo;

impl ServerInfo {
    /// Sets the web page origins from which browsers may poll and publish, by the Fetch standard's CORS protocol. The server
    /// then also answers their preflight requests, for the paths of the [`fallback`](ServerInfo::fallback), too. It replaces
    /// an earlier [`cors_origin`](ServerInfo::cors_origin). Defaults to none: only pages of the same origin may.
    ///
    /// Whatever is set, the server refuses a publish by a page of an origin that is neither allowed nor its own, with 403:
    /// one whose `Origin` is not that of its `Host`, unless `Sec-Fetch-Site` says that it is. A proxy before the server must
    /// pass `Host` on as it comes.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::Cors;
    ///
    /// let cors =
    ///     Cors::new().origins(["https://app.example.com", "https://admin.example.com"]);
    /// let info = ServerInfo::new("127.0.0.1:8080").cors(cors.credentials(true));
    /// ```
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(cors);
        self
    }

    /// Sets one origin (`"https://example.com"`, or `"*"`) whose pages may poll and publish: [`cors`](ServerInfo::cors) in
    /// short, which it replaces. Browsers compare the text, so an origin that no browser sends, such as one with a path, is
    /// an error. Defaults to none: only pages of the same origin may.
    pub fn cors_origin(mut self, origin: impl Into<String>) -> Self {
        let mut cors = Cors::new().origins([origin]);
        cors.setting = "cors_origin";
        self.cors = Some(cors);
        self
    }

    /// Sets the hosts that the server answers for: names and addresses, without a port for all ports, such as
    /// `"events.example.com"`, `"*.example.com"`, `"192.0.2.1:8080"` or `"[2001:db8::1]"`. `"*"` stands for every host. The
    /// server answers 421 to a request whose `Host` is another one, on every path. Requests without `Host`, of HTTP/1.0,
    /// pass.
    ///
    /// Defaults to an empty list: every host, unless the server listens on a loopback address. There, the loopback names
    /// (`localhost`, names below it, `127.0.0.1` and its like, `[::1]`) pass always, and other hosts only if they are
    /// listed. Otherwise a page of a foreign name could poll and publish, once the name's address is that of the server (DNS
    /// rebinding). A proxy before such a server passes the site's own host on, which has to be listed.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    ///
    /// // Behind a proxy for https://events.example.com.
    /// let info = ServerInfo::new("127.0.0.1:8080").hosts(["events.example.com"]);
    /// // No check.
    /// let info = ServerInfo::new("127.0.0.1:8080").hosts(["*"]);
    /// ```
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the path at which the server serves its JavaScript client, an ES module of under 5 KB without dependencies, such
    /// as `"/long-polling.js"`. Browsers may keep it for a day. Defaults to none: the server does not serve it, and the
    /// program does not contain it. See [`guide::browsers`](crate::guide::browsers).
    ///
    /// ```
    /// use long_polling::ServerInfo;
    ///
    /// // <script type="module">
    /// // import { follow, publish } from "/long-polling.js";
    /// // </script>
    /// let info = ServerInfo::new("127.0.0.1:8080").browser_client("/long-polling.js");
    /// ```
    pub fn browser_client(mut self, path: impl Into<String>) -> Self {
        self.browser_client = Some(BrowserClient::at(path.into()));
        self
    }
    /// Sets after how long without an event the server writes a comment to a stream of Server-Sent Events, so that proxies don't
    /// take it for dead. 100 milliseconds or more. Defaults to 15 seconds, as the HTML standard advises.
    ///
    /// A client gets a stream instead of a poll if its `Accept` names `text/event-stream`, as a browser's `EventSource` does;
    /// see [`guide::http_api`](crate::guide::http_api).
    ///
    /// ```
    /// use std::time::Duration;
    /// use long_polling::ServerInfo;
    ///
    /// // A proxy cuts connections off that are silent for 10 seconds.
    /// let info = ServerInfo::new(":8080").stream_heartbeat(Duration::from_secs(5));
    /// ```
    pub fn stream_heartbeat(mut self, period: Duration) -> Self {
        self.stream_heartbeat = period;
        self
    }
}
