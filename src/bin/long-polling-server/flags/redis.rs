//! The flags for Redis: none where the program is built without it.

use super::Topic;

#[cfg(not(feature = "redis"))]
pub(super) const TOPIC: Topic = Topic {
    title: "Events in Redis (not in this program: build it with --features cli,redis)",
    flags: &[],
};

#[cfg(feature = "redis")]
pub(super) const TOPIC: Topic = Topic {
    title: "Events in Redis",
    flags: FLAGS,
};

#[cfg(feature = "redis")]
const FLAGS: &[super::Flag] = {
    use super::Apply::{Redis, Settings};
    use super::Flag;
    &[
        Flag {
            name: "--redis",
            value: "URL",
            help: "keep events in this Redis, in common with other servers: redis://[USER:PASSWORD@]HOST[:PORT]. Every user \
                   of this machine can see the command line: put a password into LONG_POLLING_REDIS",
            setting: "redis",
            apply: Settings(|settings, value| {
                settings.redis = Some(long_polling::RedisBackplane::new(value.text()?));
                Ok(())
            }),
        },
        Flag {
            name: "--redis-prefix",
            value: "TEXT",
            help: "what every key in Redis begins with (lp:)",
            setting: "key_prefix",
            apply: Redis(|redis, value| Ok(redis.key_prefix(value.text()?))),
        },
        Flag {
            name: "--redis-streams",
            value: "N",
            help: "the streams among which categories are divided; the same on every server (1)",
            setting: "streams",
            apply: Redis(|redis, value| Ok(redis.streams(value.number()?))),
        },
        Flag {
            name: "--redis-read-streams",
            value: "LIST",
            help: "the streams that this server reads, from 0 on, such as 0,1 (all)",
            setting: "read_streams",
            apply: Redis(|redis, value| Ok(redis.read_streams(value.list::<usize>()?))),
        },
        Flag {
            name: "--redis-max-stream-length",
            value: "N",
            help: "about how many events Redis keeps of each stream (100000)",
            setting: "max_stream_length",
            apply: Redis(|redis, value| Ok(redis.max_stream_length(value.number()?))),
        },
        Flag {
            name: "--redis-max-wait",
            value: "DURATION",
            help: "how long a publish waits for Redis before it gets 503 (5s)",
            setting: "max_wait",
            apply: Redis(|redis, value| Ok(redis.max_wait(value.duration()?))),
        },
        Flag {
            name: "--redis-response-timeout",
            value: "DURATION",
            help: "how long Redis may take for a connection and for an answer (5s)",
            setting: "response_timeout",
            apply: Redis(|redis, value| Ok(redis.response_timeout(value.duration()?))),
        },
        Flag {
            name: "--redis-wait-for-replicas",
            value: "N",
            help: "how many replicas must have an event before its publish is answered (0)",
            setting: "wait_for_replicas",
            apply: Redis(|redis, value| Ok(redis.wait_for_replicas(value.number()?))),
        },
    ]
};
