//! The guide: one page for each task, for readers who know the types and look for the way.
//!
//! | page | for |
//! |---|---|
//! | [`http_api`] | authors of clients in any language: the HTTP API, with curl |
//! | [`embedding`] | programmers who put a server or a broker into their program |
//! | [`client`] | programmers of clients: `Subscriber`, `Publisher`, positions, proxies, other languages |
//! | [`browsers`] | authors of web pages: the JavaScript client, CORS, hosts, connections of a browser |
//! | [`authentication`] | all who decide who may subscribe and publish: credentials, rights, client addresses |
//! | [`durability`] | all whose events must survive a restart: the file, what a crash may cost, own stores |
//! | `redis` (with the feature `redis`) | operators and programmers with more than one server: one history of events in Redis |
//! | [`deploying`] | operators: nginx, systemd, limits, and which time-out must be longer than which |
//! | [`memory`] | operators and programmers with little memory: how much a server allocates |
//! | [`performance`] | all who choose or tune a server: figures, the commands that measure them, cost as work grows |
//! | [`testing`] | programmers who test a program that uses this crate |
//! | [`migrating`] | users of the Go package `long-polling` or of golongpoll |
//! | [`troubleshooting`] | everyone with a problem: symptom, cause, what to do |
//! | [`conformance`] | reviewers and operators: answers to good, odd and bad requests |

pub mod http_api {
    #![doc = include_str!("guide/http_api.md")]
}

pub mod embedding {
    #![doc = include_str!("guide/embedding.md")]
}

pub mod client {
    #![doc = include_str!("guide/client.md")]
}

pub mod browsers {
    #![doc = include_str!("guide/browsers.md")]
    // An image by its path would be missing in the documentation that cargo builds.
    #![doc = concat!(
        "![The page of the chat: rooms, who is here, messages, and a field for the next message](data:image/png;base64,",
        include_str!("guide/chat.png.base64"),
        ")"
    )]
}

pub mod authentication {
    #![doc = include_str!("guide/authentication.md")]
}

pub mod durability {
    #![doc = include_str!("guide/durability.md")]
}

#[cfg(feature = "redis")]
pub mod redis {
    #![doc = include_str!("guide/redis.md")]
}

pub mod deploying {
    #![doc = include_str!("guide/deploying.md")]
}

pub mod memory {
    #![doc = include_str!("guide/memory.md")]
}

pub mod performance {
    #![doc = include_str!("guide/performance.md")]
}

pub mod testing {
    #![doc = include_str!("guide/testing.md")]
}

pub mod migrating {
    #![doc = include_str!("guide/migrating.md")]
}

pub mod troubleshooting {
    #![doc = include_str!("guide/troubleshooting.md")]
}

/// For reviewers and operators: how the server answers good, odd and bad requests.
pub mod conformance {
    #![doc = include_str!("guide/conformance.md")]
}
