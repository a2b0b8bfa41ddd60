//! The flags for polls and publishes.

use long_polling::server::TimeoutAnswer;

use super::Apply::{Broker, Server};
use super::{Flag, Topic};
use crate::value::Value;

pub(super) const TOPIC: Topic = Topic {
    title: "Polls and publishes",
    flags: &[
        Flag {
            name: "--subscription-uri",
            value: "PATH",
            help: "where polls go (/events)",
            setting: "subscription_uri",
            apply: Server(|info, value| Ok(info.subscription_uri(value.text()?))),
        },
        Flag {
            name: "--publish-uri",
            value: "PATH",
            help: "where publishes go (/publish)",
            setting: "publish_uri",
            apply: Server(|info, value| Ok(info.publish_uri(value.text()?))),
        },
        Flag {
            name: "--timeout",
            value: "DURATION",
            help: "the longest poll (120s)",
            setting: "timeout",
            apply: Server(|info, value| Ok(info.timeout(value.duration()?))),
        },
        Flag {
            name: "--stream-heartbeat",
            value: "DURATION",
            help: "the time between two comments to a quiet stream of Server-Sent Events (15s)",
            setting: "stream_heartbeat",
            apply: Server(|info, value| Ok(info.stream_heartbeat(value.duration()?))),
        },
        Flag {
            name: "--poll-without-cursor",
            value: "START",
            help: "where a poll without a position starts: now, or oldest for the oldest event in memory (now)",
            setting: "poll_without_cursor",
            apply: Server(|info, value| Ok(info.poll_without_cursor(value.parsed()?))),
        },
        Flag {
            name: "--presence",
            value: "DURATION",
            help: "count a client as present for this long after its last poll, such as 10s (parked polls alone count)",
            setting: "presence",
            apply: Broker(|options, value| Ok(options.presence(value.optional(Value::duration)?))),
        },
        Flag {
            name: "--golongpoll-timeouts",
            value: "",
            help: "answer polls that time out as golongpoll does, not with 204",
            setting: "timeout_answer",
            apply: Server(|info, value| {
                Ok(info.timeout_answer(if value.is_on()? {
                    TimeoutAnswer::Golongpoll
                } else {
                    TimeoutAnswer::NoContent
                }))
            }),
        },
    ],
};
