//! The checks of a server's settings, which [`Server::start`](super::Server::start) makes first.

use std::time::Duration;

use super::forwarded::TrustedProxies;
use super::hooks::Handler;
use super::hosts;
use super::info::ServerInfo;
use super::monitoring::MonitoringEndpoint;
use crate::deadline::MAX_DURATION;
use crate::error::Error;

impl ServerInfo {
    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_endpoints()?;
        self.check_backend()
    }

    /// Checks the settings that do not concern connections.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` that names the setting.
    pub(super) fn check_endpoints(&self) -> Result<(), Error> {
        self.check_uris()?;
        self.check_durations()?;
        self.check_hooks()?;
        self.check_origin_and_proxies()?;
        self.check_shared_broker()?;
        self.broker.check()
    }

    fn check_uris(&self) -> Result<(), Error> {
        let uris = [
            ("subscription_uri", Some(&self.subscription_uri)),
            ("publish_uri", Some(&self.publish_uri)),
            ("metrics_uri", path_of(&self.metrics)),
            ("health_uri", path_of(&self.health)),
            (
                "browser_client",
                self.browser_client.as_ref().map(|client| &client.path),
            ),
        ];
        let uris = uris.map(|(name, uri)| Some((name, uri?)));
        for (at, (name, uri)) in uris.iter().flatten().enumerate() {
            if !uri.starts_with('/') {
                let problem = format!("{uri:?} does not begin with \"/\"");
                return Err(Error::setting(name, problem));
            }
            if uri.split('/').any(|segment| matches!(segment, "." | "..")) {
                let problem = format!(
                    "{uri:?} has a segment \".\" or \"..\", which clients resolve before they ask; leave it out"
                );
                return Err(Error::setting(name, problem));
            }
            if uri.contains(['?', '#', '%']) || uri.contains(|c: char| c.is_control()) {
                let problem = format!("{uri:?} is not a path: give it decoded, without a query");
                return Err(Error::setting(name, problem));
            }
            let mut others = uris.iter().flatten().take(at);
            if let Some((other, _)) = others.find(|(_, other)| other == uri) {
                let problem = format!("{uri:?} is the {other}, too; give another");
                return Err(Error::setting(name, problem));
            }
        }
        Ok(())
    }

    fn check_durations(&self) -> Result<(), Error> {
        for (name, duration) in [
            ("timeout", Some(self.timeout)),
            ("idle_timeout", self.idle_timeout),
            ("write_timeout", Some(self.write_timeout)),
            ("stream_heartbeat", Some(self.stream_heartbeat)),
            ("head_timeout", self.head_timeout),
            ("body_timeout", self.body_timeout),
        ] {
            match duration {
                Some(duration) if duration.is_zero() => {
                    return Err(Error::setting(name, "is zero; give a duration"));
                }
                Some(duration) if duration > MAX_DURATION => {
                    return Err(Error::setting(name, "is longer than a century"));
                }
                _ => {}
            }
        }
        if self.effective_idle_timeout() < Duration::from_millis(100) {
            let problem = "is under 100 milliseconds, so that hardly a request would arrive whole";
            return Err(Error::setting("idle_timeout", problem));
        }
        if self.stream_heartbeat < Duration::from_millis(100) {
            let problem =
                "is under 100 milliseconds, so that streams would hardly carry anything else";
            return Err(Error::setting("stream_heartbeat", problem));
        }
        if self.timeout < Duration::from_secs(1) {
            let problem = "is under one second, the shortest poll that a client can ask for";
            return Err(Error::setting("timeout", problem));
        }
        Ok(())
    }

    fn check_hooks(&self) -> Result<(), Error> {
        for (name, handler) in [
            ("before_subscription", &self.before_subscription),
            ("before_publish", &self.before_publish),
            ("before_metrics", &self.before_metrics),
        ] {
            if let Some(fault) = handler.as_ref().and_then(Handler::fault) {
                return Err(Error::setting(name, fault));
            }
        }
        Ok(())
    }

    fn check_origin_and_proxies(&self) -> Result<(), Error> {
        if let Some(cors) = &self.cors {
            cors.check()?;
        }
        hosts::check(&self.hosts)?;
        let TrustedProxies {
            addresses,
            networks,
            ..
        } = &self.trusted_proxies;
        for (name, proxies) in [
            ("trusted_proxies", addresses),
            ("trusted_networks", networks),
        ] {
            let mut proxies = proxies.iter().filter(|proxy| proxy.is_single());
            if let Some(proxy) = proxies.find(|proxy| proxy.first().is_unspecified()) {
                let problem = format!(
                    "{proxy} is the address of no proxy; list the addresses that proxies connect from"
                );
                return Err(Error::setting(name, problem));
            }
        }
        Ok(())
    }
}

fn path_of(endpoint: &Option<MonitoringEndpoint>) -> Option<&String> {
    endpoint.as_ref().map(|endpoint| &endpoint.path)
}
