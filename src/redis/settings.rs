//! [`RedisBackplane`]: the settings of a broker whose events Redis orders.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionInfo;
use ::redis::IntoConnectionInfo;

use super::state::{OnState, RedisState};
use crate::config::{Count, List, Text, Time, settings};
use crate::deadline::MAX_DURATION;
use crate::error::Error;

/// The most streams, so that a mistaken number does not start thousands of threads.
const MAX_STREAMS: usize = 1024;

/// Redis, or Valkey, as the common history of several servers: their events lie in a Redis stream, and every server shows
/// the stream's events in the stream's order. A subscriber may poll any of the servers, and change between them.
///
/// [`guide::redis`](crate::guide::redis) describes the set-up, what is promised, and which settings of Redis give which
/// guarantee.
///
/// ```no_run
/// use long_polling::{RedisBackplane, Server, ServerInfo};
///
/// let redis = RedisBackplane::new("redis://127.0.0.1:6379").key_prefix("lp:");
/// let server = Server::start(ServerInfo::new(":8080").redis(redis))?;
/// # Ok::<(), long_polling::Error>(())
/// ```
///
/// A configuration file can have these settings, and has to have `url`; [`ServerInfo`](crate::ServerInfo) says how.
///
/// All nodes must have the same [`key_prefix`](RedisBackplane::key_prefix) and [`streams`](RedisBackplane::streams). A
/// setting that is given twice has the last value. A value that can't be used is reported where the broker starts.
#[derive(Clone)]
#[must_use = "settings do nothing until a broker or server starts with them"]
pub struct RedisBackplane {
    pub(super) url: String,
    pub(super) key_prefix: String,
    pub(super) streams: usize,
    pub(super) read_streams: Option<BTreeSet<usize>>,
    pub(super) max_stream_length: usize,
    pub(super) max_wait: Duration,
    pub(super) response_timeout: Duration,
    pub(super) replicas: usize,
    pub(super) on_state: Option<OnState>,
}

settings!(
    RedisBackplane, of "Redis", unset RedisBackplane::new(""),
    {
        url: Text,
        key_prefix: Text,
        streams: Count,
        read_streams: List<Count>,
        max_stream_length: Count,
        max_wait: Time,
        response_timeout: Time,
        wait_for_replicas: Count,
    }
    fn check_given<E: serde::de::Error>(given: &[&str]) -> Result<(), E> {
        match given.contains(&"url") {
            true => Ok(()),
            false => Err(E::missing_field("url")),
        }
    }
);

impl RedisBackplane {
    /// The default settings, and the URL of Redis: `redis://[user][:password@]host[:port][/database]`, or `rediss://…` for
    /// TLS with the feature `redis-tls`. For a Redis Cluster, the URL of any of its nodes.
    pub fn new(url: impl Into<String>) -> Self {
        RedisBackplane {
            url: url.into(),
            key_prefix: "lp:".into(),
            streams: 1,
            read_streams: None,
            max_stream_length: 100_000,
            max_wait: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            replicas: 0,
            on_state: None,
        }
    }

    fn url(mut self, url: String) -> Self {
        self.url = url;
        self
    }

    /// Sets what every key in Redis begins with, so that several programs can share a Redis. Braces are an error, since
    /// they decide the slot in a Redis Cluster. Defaults to `"lp:"`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Sets the number of streams among which the categories are divided. With 1, all events have one order, as on one
    /// machine. With more, each stream has an order of its own, a poll can follow only categories of one stream, and in a
    /// Redis Cluster the streams lie on different masters. The stream of a category is its CRC-16 modulo this number; if
    /// the name has a part in braces, such as `{room 7}:chat`, that part decides alone, as in Redis Cluster. Another number
    /// moves categories to other streams, without their events. 0 and more than 1024 are errors. Defaults to 1.
    pub fn streams(mut self, streams: usize) -> Self {
        self.streams = streams;
        self
    }

    /// Sets the streams that this node reads, from 0 on. The node answers 421 to polls and publishes of the other streams'
    /// categories. None, or one that does not exist, is an error. Defaults to all.
    pub fn read_streams(mut self, streams: impl IntoIterator<Item = usize>) -> Self {
        self.read_streams = Some(streams.into_iter().collect());
        self
    }

    /// Sets about how many events Redis keeps of each stream. A node that starts fills its ring buffers from these, and a
    /// node that was away for longer than these reports a gap. Redis removes older events in blocks, so that a few more
    /// stay. 0 is an error. Defaults to 100,000.
    pub fn max_stream_length(mut self, events: usize) -> Self {
        self.max_stream_length = events;
        self
    }

    /// Sets how long a publish waits for Redis before it is refused with 503, if Redis is away. A publish that was sent to
    /// Redis and has no answer yet waits a minute longer, since it may have been published. Zero refuses at once. More than
    /// a century is an error. Defaults to 5 seconds.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets how long Redis may take for a connection and for an answer. After that, the node connects again. Less than 100
    /// milliseconds and more than a century are errors. Defaults to 5 seconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Sets how many replicas must have an event before its publish returns, by Redis' command `WAIT`. If fewer have it in
    /// time, the publish fails, and the event is published all the same. Defaults to 0: Redis itself is enough.
    pub fn wait_for_replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets a callback for changes of the connection's state. It runs in the threads that talk to Redis, and must not
    /// block. A panic in it is logged. Defaults to none; changes are logged anyway.
    pub fn on_state(mut self, callback: impl Fn(&RedisState) + Send + Sync + 'static) -> Self {
        self.on_state = Some(OnState(Arc::new(callback)));
        self
    }

    /// Checks the settings, and returns where Redis is.
    ///
    /// # Errors
    ///
    /// `InvalidSetting`.
    pub(super) fn check(&self) -> Result<ConnectionInfo, Error> {
        if self.key_prefix.contains(['{', '}']) {
            let problem = format!(
                "{:?} has a brace, which would decide the slot of every stream in a Redis Cluster; leave it out",
                self.key_prefix
            );
            return Err(Error::setting("key_prefix", problem));
        }
        if !(1..=MAX_STREAMS).contains(&self.streams) {
            let problem = format!("is {}; give 1 to {MAX_STREAMS}", self.streams);
            return Err(Error::setting("streams", problem));
        }
        if let Some(read) = &self.read_streams {
            let last = self.streams - 1;
            if read.is_empty() {
                let problem = "names no stream, so that the node would serve nothing; name one";
                return Err(Error::setting("read_streams", problem));
            }
            if let Some(stream) = read.iter().find(|stream| **stream > last) {
                let problem = format!("names stream {stream}; the streams are 0 to {last}");
                return Err(Error::setting("read_streams", problem));
            }
        }
        if self.max_stream_length == 0 {
            let problem =
                "is 0, so that no node would see an event; give about as many as are to be kept";
            return Err(Error::setting("max_stream_length", problem));
        }
        if self.response_timeout < Duration::from_millis(100) {
            let problem = "is under 100 milliseconds, so that a busy Redis would count as gone";
            return Err(Error::setting("response_timeout", problem));
        }
        for (name, duration) in [
            ("max_wait", self.max_wait),
            ("response_timeout", self.response_timeout),
        ] {
            if duration > MAX_DURATION {
                return Err(Error::setting(name, "is longer than a century"));
            }
        }
        self.connection_info()
    }

    fn connection_info(&self) -> Result<ConnectionInfo, Error> {
        let shown = shown(&self.url);
        if self.url.starts_with("rediss://") && !cfg!(feature = "redis-tls") {
            let problem = format!("{shown:?} asks for TLS: build with the feature redis-tls");
            return Err(Error::setting("redis", problem));
        }
        self.url.as_str().into_connection_info().map_err(|error| {
            let problem = format!(
                "{shown:?} is not the URL of a Redis, such as redis://127.0.0.1:6379 or redis://:password@host/1"
            );
            Error::setting("redis", problem).with_source(error)
        })
    }
}

/// Returns a URL without its password.
pub(super) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:…@{place}")
        }
        None => url.to_owned(),
    }
}

impl std::fmt::Debug for RedisBackplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBackplane")
            .field("url", &shown(&self.url))
            .field("key_prefix", &self.key_prefix)
            .field("streams", &self.streams)
            .field("read_streams", &self.read_streams)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_setting_that_cant_be_used_is_named() {
        let redis = || RedisBackplane::new("redis://127.0.0.1");
        for (name, settings) in [
            ("redis", RedisBackplane::new("http://127.0.0.1")),
            ("redis", RedisBackplane::new("127.0.0.1:6379")),
            ("redis", RedisBackplane::new("")),
            ("key_prefix", redis().key_prefix("a{b}")),
            ("streams", redis().streams(0)),
            ("streams", redis().streams(5000)),
            ("read_streams", redis().read_streams([])),
            ("read_streams", redis().streams(2).read_streams([2])),
            ("max_stream_length", redis().max_stream_length(0)),
            ("response_timeout", redis().response_timeout(Duration::ZERO)),
            ("response_timeout", redis().response_timeout(Duration::MAX)),
            ("max_wait", redis().max_wait(Duration::MAX)),
        ] {
            let error = settings.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSetting);
            assert!(
                error.to_string().starts_with(&format!("{name}: ")),
                "{error}"
            );
        }
        assert!(redis().streams(2).read_streams([1]).check().is_ok());
        let longest = redis().max_wait(MAX_DURATION);
        assert!(longest.response_timeout(MAX_DURATION).check().is_ok());
    }

    #[test]
    fn no_message_has_the_password() {
        for url in ["redis://user:secret@host/x", "http://:secret@host"] {
            let settings = RedisBackplane::new(url);
            let error = settings.check().unwrap_err();
            assert!(!error.report().to_string().contains("secret"), "{error}");
            assert!(!format!("{settings:?}").contains("secret"));
        }
    }
}
