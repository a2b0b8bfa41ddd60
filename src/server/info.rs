//! [`ServerInfo`]: the settings of a server. `pages` and `backend` have more of them; `validate` checks them.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::browser::BrowserClient;
use super::cors::Cors;
use super::forwarded::TrustedProxies;
use super::hooks::{Fallback, Handler};
use super::http_backend::HttpBackend;
use super::listening_socket::ListeningSocket;
use super::monitoring::MonitoringEndpoint;
use super::network::Network;
use super::poll_settings::{PollWithoutCursor, TimeoutAnswer};
use crate::broker::{Broker, BrokerOptions, Clock};
use crate::error::Error;
use crate::store::Store;
use crate::store::file::FilePersistorInfo;

/// The settings of a server: the Go package's `ServerInfo`, with golongpoll's options and limits.
///
/// With tiny_http, the default [backend](ServerInfo::http_backend), the server is for trusted networks, or belongs behind a
/// proxy. No setting keeps it from a request line with `HTTP/2.0`, from header lines or pipelined requests without end, from
/// a client that sends byte by byte, or from refused bodies that are announced and not sent: each of these holds threads,
/// memory or descriptors. A proxy stops them; [`guide::deploying`](crate::guide::deploying) has a configuration of nginx,
/// with a test that it does. The native backend bounds all of them.
///
/// ```
/// use std::time::Duration;
/// use long_polling::server::{Handler, ServerInfo};
///
/// let info = ServerInfo::new(":8080")
///     .timeout(Duration::from_secs(60))
///     .before_publish(Handler::bearer_token("secret"));
/// ```
///
/// A setting that is given twice has the last value. [`Server::start`](crate::Server::start) reports a value that can't be
/// used, and names the setting.
///
/// # Configuration files
///
/// Programs read these settings from files by serde, in any format that describes itself, such as TOML, YAML or JSON: a map
/// in which each setting has the name of its setter, and a setting that is missing has its default. `broker`, `file` and
/// `redis` are maps of the settings of [`BrokerOptions`], [`FilePersistorInfo`] and `RedisBackplane`.
///
/// ```
/// use long_polling::ServerInfo;
///
/// let info: ServerInfo = toml::from_str(
///     r#"
///     address = ":8080"
///     timeout = "2m"
///     cors_origin = "https://app.example.com"
///     trusted_proxies = ["10.0.0.1"]
///
///     [broker]
///     events_per_category = 1000
///     event_ttl = "1h"
///     max_event_size = "64K"
///
///     [file]
///     file_name = "events.log"
///     durability = "synced:2s"
///     "#,
/// )?;
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// - A duration is text such as `"10s"`, `"500ms"`, `"5m"` or `"1h30m"`, or a number of seconds, with or without a fraction;
///   [`parse_duration`](crate::units::parse_duration) has all forms.
/// - A size is text such as `"64K"` or `"64M"`, or a number of bytes; see [`parse_size`](crate::units::parse_size).
/// - A setting that can be `None` takes `null` or `"none"` for that.
/// - `socket_mode` is octal text such as `"660"`. Enums such as [`HttpBackend`] and [`Durability`](crate::Durability) have
///   the texts that they name.
/// - Numbers and truth values may be text, too, as some formats and environment variables have nothing else.
///
/// A setting that is unknown or given twice is an error, as is `file` beside `redis`; so a misspelt name is not overlooked.
/// The error of a value that can't be read names its setting. Values that can be read are checked by
/// [`Server::start`](crate::Server::start). What is code or an object of the program can't be in a file: hooks, callbacks,
/// `listener`, `store` and `shared_broker` are set by their setters afterwards.
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until a server starts with them"]
pub struct ServerInfo {
    pub(crate) address: String,
    pub(super) listener: Option<ListeningSocket>,
    pub(crate) socket_mode: Option<u32>,
    pub(crate) timeout: Duration,
    pub(crate) subscription_uri: String,
    pub(crate) before_subscription: Option<Handler>,
    pub(crate) publish_uri: String,
    pub(crate) before_publish: Option<Handler>,
    pub(crate) fallback: Option<Fallback>,
    pub(super) metrics: Option<MonitoringEndpoint>,
    pub(super) before_metrics: Option<Handler>,
    pub(super) health: Option<MonitoringEndpoint>,
    pub(crate) timeout_answer: TimeoutAnswer,
    pub(crate) poll_without_cursor: PollWithoutCursor,
    pub(crate) broker: BrokerOptions,
    pub(crate) store: StoreSetting,
    pub(super) cors: Option<Cors>,
    pub(super) hosts: Vec<String>,
    pub(super) browser_client: Option<BrowserClient>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(super) stream_heartbeat: Duration,
    pub(crate) restore_timeout: Duration,
    pub(super) trusted_proxies: TrustedProxies,
    pub(crate) on_failure: Option<OnFailure>,
    pub(crate) http_backend: HttpBackend,
    pub(crate) max_connections: Option<usize>,
    pub(crate) thread_stack_size: usize,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) body_timeout: Option<Duration>,
    pub(crate) max_body_size: Option<usize>,
}

/// Where the server keeps its events besides memory.
#[derive(Clone, Debug, Default)]
pub(crate) enum StoreSetting {
    #[default]
    None,
    File(FilePersistorInfo),
    Store(GivenStore),
    /// The broker has a store of its own, or none.
    Shared(Broker),
    #[cfg(feature = "redis")]
    Redis(crate::RedisBackplane),
}

/// The store of [`ServerInfo::store`]. The first server that starts takes it; copies of the settings share it.
#[derive(Clone)]
pub(crate) struct GivenStore(Arc<Mutex<Option<Box<dyn Store>>>>);

impl GivenStore {
    /// # Errors
    ///
    /// `InvalidSetting` where a server has taken the store already.
    pub(crate) fn take(&self) -> Result<Box<dyn Store>, Error> {
        self.0.lock().take().ok_or_else(|| {
            let problem =
                "a server has taken this store already; give each server a store of its own";
            Error::setting("store", problem)
        })
    }
}

impl std::fmt::Debug for GivenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenStore")
    }
}

/// The callback of [`ServerInfo::on_failure`].
#[derive(Clone)]
pub(crate) struct OnFailure(Arc<dyn Fn(Error) + Send + Sync>);

impl OnFailure {
    pub(crate) fn call(&self, error: Error) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(error))).is_err() {
            log::error!("the callback ServerInfo::on_failure panicked");
        }
    }
}

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFailure")
    }
}

impl Default for ServerInfo {
    fn default() -> Self {
        ServerInfo {
            address: "127.0.0.1:8080".into(),
            listener: None,
            socket_mode: None,
            timeout: Duration::from_secs(120),
            subscription_uri: "/events".into(),
            before_subscription: None,
            publish_uri: "/publish".into(),
            before_publish: None,
            fallback: None,
            metrics: None,
            before_metrics: None,
            health: None,
            timeout_answer: TimeoutAnswer::default(),
            poll_without_cursor: PollWithoutCursor::default(),
            broker: BrokerOptions::default(),
            store: StoreSetting::None,
            cors: None,
            hosts: Vec::new(),
            browser_client: None,
            idle_timeout: None,
            write_timeout: Duration::from_secs(10),
            stream_heartbeat: Duration::from_secs(15),
            restore_timeout: Duration::from_secs(30),
            trusted_proxies: TrustedProxies::default(),
            on_failure: None,
            http_backend: HttpBackend::default(),
            max_connections: None,
            thread_stack_size: 256 * 1024,
            head_timeout: None,
            body_timeout: None,
            max_body_size: None,
        }
    }
}

impl ServerInfo {
    /// The default settings, and this address; see [`address`](ServerInfo::address).
    pub fn new(address: impl Into<String>) -> Self {
        ServerInfo::default().address(address)
    }

    /// Sets where to listen: `"127.0.0.1:8080"`, `"[::1]:0"`, `"localhost:8080"`, or `":8080"` for every address of the
    /// machine. A link-local IPv6 address needs its zone, the interface's name or number: `"[fe80::1%eth0]:8080"`. Port 0
    /// takes a free port, which [`Server::local_addr`](crate::Server::local_addr) returns. It replaces an earlier
    /// [`listener`](ServerInfo::listener). Defaults to `"127.0.0.1:8080"`.
    ///
    /// On Unix, and with the native backend, `"unix:/run/app/events.sock"` listens on a Unix socket at this path. A relative
    /// path is one of the working directory at the start. [`socket_mode`](ServerInfo::socket_mode) sets who may connect. A
    /// stale socket, which a server that was killed has left, is replaced; the start fails where a program listens on the
    /// socket, or where the path is of another file. The stop removes the socket.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self.listener = None;
        self
    }

    /// Sets the mode of the Unix socket that [`address`](ServerInfo::address) names, such as `0o660` for the user and the
    /// group of its file. A program needs the right to write to connect (on Linux and most other systems). The mode holds from
    /// the first connection on. It has no effect on TCP, nor on a [`listener`](ServerInfo::listener). Defaults to `None`: the
    /// umask of the process decides.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    ///
    /// let info = ServerInfo::new("unix:/run/app/events.sock").socket_mode(0o660);
    /// ```
    pub fn socket_mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.socket_mode = mode.into();
        self
    }

    /// Sets a socket that the program has made itself, and that listens already: a `TcpListener`, or on Unix and with the
    /// native backend a `UnixListener`. A service manager such as systemd passes such sockets to the program. It replaces
    /// [`address`](ServerInfo::address). Defaults to none.
    ///
    /// Copies of these settings share the socket. The first server that starts with one of them takes it, also where that
    /// start fails. The server lets the socket block, sets its backlog to 4,096, and with tiny_http its time-outs and options
    /// of TCP, all of which duplicates of the socket share.
    ///
    /// The stop closes the socket. Without duplicates, the port is free then. The native backend does not shut the socket down
    /// unless `accept` can't be ended otherwise. Duplicates of it, in this program or another, listen on: a connection that the
    /// server has not accepted waits for them. They may see some connections that are closed at once, with which the server
    /// wakes its own threads. With tiny_http, the stop shuts the socket down, and on Linux its duplicates don't listen any more
    /// either: to pass a socket from one server to the next, choose the native backend. The server does not remove the file of
    /// a `UnixListener`.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use long_polling::{Server, ServerInfo};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let server = Server::start(ServerInfo::default().listener(listener))?;
    /// assert_eq!(server.local_addr(), address);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listener(mut self, listener: impl Into<ListeningSocket>) -> Self {
        self.listener = Some(listener.into());
        self
    }

    /// Sets the longest poll that the server grants. A client that asks for more gets this. The Go package's
    /// `TimeoutSeconds`. Defaults to 120 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the path of polls: the Go package's `SubscriptionURI`. Defaults to `"/events"`.
    pub fn subscription_uri(mut self, path: impl Into<String>) -> Self {
        self.subscription_uri = path.into();
        self
    }

    /// Sets a hook that runs before each poll: a [`Handler`], or a closure
    /// `|request: &Request| -> Result<(), Response>`. The Go package's `HandlerToRunBeforeSubscription`. Defaults to none.
    pub fn before_subscription(mut self, handler: impl Into<Handler>) -> Self {
        self.before_subscription = Some(handler.into());
        self
    }

    /// Sets the path of publishes: the Go package's `PublishURI`. Defaults to `"/publish"`.
    pub fn publish_uri(mut self, path: impl Into<String>) -> Self {
        self.publish_uri = path.into();
        self
    }

    /// Sets a hook that runs before each publish, as [`before_subscription`](ServerInfo::before_subscription) does before
    /// each poll. The Go package's `HandlerToRunBeforePublish`. Defaults to none: every client that reaches the server may
    /// publish.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    /// use long_polling::server::{Request, Response};
    ///
    /// let info = ServerInfo::default().before_publish(|request: &Request| {
    ///     match request.category() {
    ///         Some("open") => Ok(()),
    ///         _ => Err(Response::error(403, "this category is read-only")),
    ///     }
    /// });
    /// ```
    pub fn before_publish(mut self, handler: impl Into<Handler>) -> Self {
        self.before_publish = Some(handler.into());
        self
    }

    /// Sets what answers every other path: a [`Fallback`], or a closure `|request: &Request| -> Response` or
    /// `-> Result<Response, Response>`. Defaults to none: the server answers 404.
    pub fn fallback(mut self, fallback: impl Into<Fallback>) -> Self {
        self.fallback = Some(fallback.into());
        self
    }

    /// Sets the largest body of a request to the [`fallback`](ServerInfo::fallback), in bytes. The server holds the whole
    /// body in memory, answers a larger one with 413, and then does not run the fallback. Defaults to `None`, which stands
    /// for the limit of a publish's body: [`max_event_size`](BrokerOptions::max_event_size) plus 8 KiB, with the default
    /// options 1 MiB and 8 KiB. This setting does not change that limit of publishes.
    pub fn max_body_size(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.max_body_size = bytes.into();
        self
    }

    /// Sets the answer to a poll that times out. Defaults to [`TimeoutAnswer::NoContent`], the Go package's way.
    pub fn timeout_answer(mut self, answer: TimeoutAnswer) -> Self {
        self.timeout_answer = answer;
        self
    }

    /// Sets where a poll without a cursor starts. Defaults to [`PollWithoutCursor::Now`].
    pub fn poll_without_cursor(mut self, start: PollWithoutCursor) -> Self {
        self.poll_without_cursor = start;
        self
    }

    /// Sets what the broker keeps, and its limits. It replaces an earlier [`shared_broker`](ServerInfo::shared_broker).
    /// Defaults to [`BrokerOptions::new`].
    pub fn broker(mut self, options: BrokerOptions) -> Self {
        self.broker = options;
        if self.shares_broker() {
            self.store = StoreSetting::None;
        }
        self
    }

    /// Keeps the events in a file, too: the start reads them back, and the server writes new events to it. It replaces an
    /// earlier [`store`](ServerInfo::store) or [`shared_broker`](ServerInfo::shared_broker). Defaults to none: the server
    /// keeps events in memory only.
    pub fn file(mut self, file: FilePersistorInfo) -> Self {
        self.store = StoreSetting::File(file);
        self
    }

    /// Keeps the events in a store of the program's own, too. It replaces an earlier [`file`](ServerInfo::file) or
    /// [`shared_broker`](ServerInfo::shared_broker). Defaults to none.
    ///
    /// Copies of these settings share the store. The first server that starts with one of them takes it; a later start
    /// fails.
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        let store: Box<dyn Store> = Box::new(store);
        self.store = StoreSetting::Store(GivenStore(Arc::new(Mutex::new(Some(store)))));
        self
    }

    /// Keeps the events in Redis, in common with other servers. It replaces an earlier [`file`](ServerInfo::file),
    /// [`store`](ServerInfo::store) or [`shared_broker`](ServerInfo::shared_broker). Defaults to none. See
    /// [`guide::redis`](crate::guide::redis).
    #[cfg(feature = "redis")]
    pub fn redis(mut self, redis: crate::RedisBackplane) -> Self {
        self.store = StoreSetting::Redis(redis);
        self
    }

    /// Sets how long a connection may be silent, between two requests or within one, before it is closed. Less than the
    /// timeout is fine: a parked poll is still answered, and tiny_http then closes its connection. Defaults to `None`, which
    /// stands for [`timeout`](ServerInfo::timeout) plus 10 seconds.
    ///
    /// With the native backend, this is the time between two requests; a request has limits of its own, which are
    /// [`head_timeout`](ServerInfo::head_timeout) and [`body_timeout`](ServerInfo::body_timeout).
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }

    /// Sets how long an answer may wait for a client that does not read. Defaults to 10 seconds.
    ///
    /// With tiny_http, this is for each piece of the answer that the system takes at once. With the native backend, it is
    /// for the whole answer, plus one second for each 64 KiB of it.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how long accepting connections may fail, for want of descriptors for instance, before the server calls
    /// [`on_failure`](ServerInfo::on_failure). The server tries again before and after that. Defaults to 30 seconds.
    pub fn restore_timeout(mut self, timeout: Duration) -> Self {
        self.restore_timeout = timeout;
        self
    }

    /// Sets the addresses of the proxies before the server. Where a connection comes from one of them,
    /// [`Request::remote_address`](crate::server::Request::remote_address) is taken from `X-Forwarded-For`. Every program
    /// that can connect from one of these addresses can claim any client address, and so can every client of a proxy that
    /// forwards the field unchanged: the proxy must set it, or append to it. Defaults to none: the server ignores the
    /// field, since every client can send it.
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        self.trusted_proxies.addresses = proxies.into_iter().map(Network::from).collect();
        self
    }

    /// Sets networks of which every address is that of a proxy before the server, besides the addresses of
    /// [`trusted_proxies`](ServerInfo::trusted_proxies), which says what a trusted proxy may do. For proxies whose addresses
    /// change, as they do in clusters of containers. Defaults to none.
    ///
    /// ```
    /// use long_polling::ServerInfo;
    ///
    /// let info = ServerInfo::default()
    ///     .trusted_networks(["10.0.0.0/8".parse()?, "fd00::/8".parse()?]);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    pub fn trusted_networks(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.trusted_proxies.networks = networks.into_iter().collect();
        self
    }

    /// Sets whether every program that connects over a Unix socket is a trusted proxy, as the
    /// [`trusted_proxies`](ServerInfo::trusted_proxies) are on TCP: peers on a Unix socket have no address by which to tell
    /// them apart. Then [`Request::remote_address`](crate::server::Request::remote_address) is taken from `X-Forwarded-For`,
    /// and [`socket_mode`](ServerInfo::socket_mode) should let nobody connect but the proxy. Defaults to `false`: the server
    /// ignores the field, and such requests have no remote address. It has no effect on TCP.
    pub fn trust_unix_peers(mut self, trust: bool) -> Self {
        self.trusted_proxies.unix_peers = trust;
        self
    }

    /// Sets a callback that runs once if no connection could be accepted for
    /// [`restore_timeout`](ServerInfo::restore_timeout): the Go package's `listenAndServeFailureFunc`. Only errors of the
    /// system count, such as a lack of descriptors or threads. The server tries again until it is stopped, so the callback
    /// has no need to end the program. A panic in the callback is logged. Defaults to none.
    pub fn on_failure(mut self, callback: impl Fn(Error) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(OnFailure(Arc::new(callback)));
        self
    }

    /// Opens the broker of a server with these settings.
    pub(super) fn open_broker(&self, clock: Clock) -> Result<Broker, Error> {
        let options = self.broker.clone();
        match &self.store {
            StoreSetting::None => Broker::start(options, None, clock),
            StoreSetting::File(file) => Broker::start(options, Some(file.clone()), clock),
            StoreSetting::Store(store) => Broker::restore(options, clock, store.take()?),
            StoreSetting::Shared(broker) => Ok(broker.clone()),
            #[cfg(feature = "redis")]
            StoreSetting::Redis(redis) => {
                Broker::with_backplane(options, clock, redis.clone().into_backplane()?)
            }
        }
    }

    /// The idle timeout, or its default.
    pub(super) fn effective_idle_timeout(&self) -> Duration {
        self.idle_timeout
            .unwrap_or(self.timeout + Duration::from_secs(10))
    }
}
