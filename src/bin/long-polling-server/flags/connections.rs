//! The flags for connections.

use super::Apply::Server;
use super::{Flag, Topic};
use crate::value::Value;

pub(super) const TOPIC: Topic = Topic {
    title: "Connections",
    flags: &[
        Flag {
            name: "--idle-timeout",
            value: "DURATION",
            help: "close connections that are silent for this long (--timeout and 10s)",
            setting: "idle_timeout",
            apply: Server(|info, value| Ok(info.idle_timeout(value.optional(Value::duration)?))),
        },
        Flag {
            name: "--write-timeout",
            value: "DURATION",
            help: "close connections that don't read an answer for this long (10s)",
            setting: "write_timeout",
            apply: Server(|info, value| Ok(info.write_timeout(value.duration()?))),
        },
        Flag {
            name: "--restore-timeout",
            value: "DURATION",
            help: "report a failure after accepting no connection for this long (30s)",
            setting: "restore_timeout",
            apply: Server(|info, value| Ok(info.restore_timeout(value.duration()?))),
        },
        Flag {
            name: "--max-connections",
            value: "N",
            help: "native: the most connections at once (what the system allows, up to 10000)",
            setting: "max_connections",
            apply: Server(|info, value| Ok(info.max_connections(value.optional(Value::number)?))),
        },
        Flag {
            name: "--head-timeout",
            value: "DURATION",
            help: "native: the most time that a request's head may take (10s)",
            setting: "head_timeout",
            apply: Server(|info, value| Ok(info.head_timeout(value.optional(Value::duration)?))),
        },
        Flag {
            name: "--body-timeout",
            value: "DURATION",
            help: "native: the most time that a request's body may take (30s)",
            setting: "body_timeout",
            apply: Server(|info, value| Ok(info.body_timeout(value.optional(Value::duration)?))),
        },
        Flag {
            name: "--thread-stack-size",
            value: "SIZE",
            help: "native: the stack of each connection's thread (256K)",
            setting: "thread_stack_size",
            apply: Server(|info, value| Ok(info.thread_stack_size(value.size()?))),
        },
    ],
};
