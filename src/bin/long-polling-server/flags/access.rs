//! The flags for who may publish and poll, and which addresses are believed.

use long_polling::server::{Handler, Network};

use super::Apply::{Server, Settings};
use super::{Flag, Topic};

pub(super) const TOPIC: Topic = Topic {
    title: "Access",
    flags: &[
        Flag {
            name: "--publish-token",
            value: "TOKEN",
            help: "require this bearer token for publishes. Every user of this machine can see the command line: use \
                   --publish-token-file or LONG_POLLING_PUBLISH_TOKEN",
            setting: "before_publish",
            apply: Server(|info, value| {
                Ok(info.before_publish(Handler::bearer_token(&value.token()?)))
            }),
        },
        Flag {
            name: "--publish-token-file",
            value: "PATH",
            help: "require the bearer token in this file for publishes",
            setting: "before_publish",
            apply: Settings(|settings, value| {
                let handler = Handler::bearer_token(&settings.token_from_file(value)?);
                settings.server(|info| info.before_publish(handler));
                Ok(())
            }),
        },
        Flag {
            name: "--subscribe-token",
            value: "TOKEN",
            help: "require this bearer token for polls. Every user of this machine can see the command line",
            setting: "before_subscription",
            apply: Server(|info, value| {
                Ok(info.before_subscription(Handler::bearer_token(&value.token()?)))
            }),
        },
        Flag {
            name: "--subscribe-token-file",
            value: "PATH",
            help: "require the bearer token in this file for polls",
            setting: "before_subscription",
            apply: Settings(|settings, value| {
                let handler = Handler::bearer_token(&settings.token_from_file(value)?);
                settings.server(|info| info.before_subscription(handler));
                Ok(())
            }),
        },
        Flag {
            name: "--trusted-proxy",
            value: "NETWORK",
            help: "take client addresses from X-Forwarded-For where a proxy at this address (10.0.0.1) or in this network \
                   (10.0.0.0/8, fd00::/8) connects; may be repeated, or a list with commas",
            setting: "trusted_networks",
            apply: Server(|info, value| Ok(info.trusted_networks(value.list::<Network>()?))),
        },
        Flag {
            name: "--trust-unix-peers",
            value: "",
            help: "take client addresses from X-Forwarded-For on a Unix socket",
            setting: "trust_unix_peers",
            apply: Server(|info, value| Ok(info.trust_unix_peers(value.is_on()?))),
        },
    ],
};
