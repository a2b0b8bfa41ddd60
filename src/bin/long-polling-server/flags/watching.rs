//! The flags for what watches the server.

use long_polling::server::Handler;

use super::Apply::{Server, Settings};
use super::{Flag, Topic};
use crate::value::Value;

pub(super) const TOPIC: Topic = Topic {
    title: "Watching",
    flags: &[
        Flag {
            name: "--health-uri",
            value: "PATH",
            help: "where load balancers ask for the server's health: 200, or 503 while the file fails or the server stops; or \
                   none for no such path (/health)",
            setting: "health_uri",
            apply: Settings(|settings, value| {
                settings.health_uri = value.optional(Value::text)?;
                Ok(())
            }),
        },
        Flag {
            name: "--metrics-uri",
            value: "PATH",
            help: "where Prometheus gets metrics, such as /metrics (nowhere)",
            setting: "metrics_uri",
            apply: Server(|info, value| Ok(info.metrics_uri(value.text()?))),
        },
        Flag {
            name: "--metrics-token",
            value: "TOKEN",
            help: "require this bearer token for metrics. Every user of this machine can see the command line",
            setting: "before_metrics",
            apply: Server(|info, value| {
                Ok(info.before_metrics(Handler::bearer_token(&value.token()?)))
            }),
        },
        Flag {
            name: "--metrics-token-file",
            value: "PATH",
            help: "require the bearer token in this file for metrics",
            setting: "before_metrics",
            apply: Settings(|settings, value| {
                let handler = Handler::bearer_token(&settings.token_from_file(value)?);
                settings.server(|info| info.before_metrics(handler));
                Ok(())
            }),
        },
    ],
};
