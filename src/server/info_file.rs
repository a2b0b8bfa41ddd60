//! [`ServerInfo`] from a configuration file.

use std::net::IpAddr;

use super::cors::Cors;
use super::http_backend::HttpBackend;
use super::info::ServerInfo;
use super::network::Network;
use super::poll_settings::{PollWithoutCursor, TimeoutAnswer};
use crate::broker::BrokerOptions;
use crate::config::{
    Count, Flag, List, Mode, Nested, Optional, Parsed, Size, Text, Time, settings,
};
use crate::store::file::FilePersistorInfo;

settings!(
    ServerInfo, of "a server", unset ServerInfo::default(),
    {
        address: Text,
        socket_mode: Optional<Mode>,
        timeout: Time,
        subscription_uri: Text,
        publish_uri: Text,
        metrics_uri: Text,
        health_uri: Text,
        max_body_size: Optional<Size>,
        timeout_answer: Parsed<TimeoutAnswer>,
        poll_without_cursor: Parsed<PollWithoutCursor>,
        broker: Nested<BrokerOptions>,
        file: Nested<FilePersistorInfo>,
        #[cfg(feature = "redis")] redis: Nested<crate::RedisBackplane>,
        cors_origin: Text,
        cors: Nested<Cors>,
        hosts: List<Text>,
        browser_client: Text,
        idle_timeout: Optional<Time>,
        write_timeout: Time,
        stream_heartbeat: Time,
        restore_timeout: Time,
        trusted_proxies: List<Parsed<IpAddr>>,
        trusted_networks: List<Parsed<Network>>,
        trust_unix_peers: Flag,
        http_backend: Parsed<HttpBackend>,
        max_connections: Optional<Count>,
        thread_stack_size: Size,
        head_timeout: Optional<Time>,
        body_timeout: Optional<Time>,
    }
    fn check_given<E: serde::de::Error>(given: &[&str]) -> Result<(), E> {
        // The order of a map means nothing, so no one of the two can win.
        for (first, second) in [("file", "redis"), ("cors_origin", "cors")] {
            if given.contains(&first) && given.contains(&second) {
                let problem = format!("{second}: {first} is given, too; leave one of them out");
                return Err(E::custom(problem));
            }
        }
        Ok(())
    }
);

settings!(
    Cors, of "the policy for pages of other origins", unset Cors::new(),
    {
        origins: List<Text>,
        credentials: Flag,
        allowed_headers: List<Text>,
        exposed_headers: List<Text>,
        max_age: Time,
    }
);
