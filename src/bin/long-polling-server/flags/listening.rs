//! The flags for the socket, and what serves HTTP on it.

use super::Apply::{Server, Settings};
use super::{Flag, Topic};
use crate::value::Value;

pub(super) const TOPIC: Topic = Topic {
    title: "Listening",
    flags: &[
        Flag {
            name: "--address",
            value: "ADDRESS",
            help: "HOST:PORT, :PORT for every address of this machine, port 0 for a free one, or unix:PATH for a Unix \
                   socket (127.0.0.1:8080). A socket that systemd passes takes its place",
            setting: "address",
            apply: Settings(|settings, value| {
                let address = value.text()?;
                settings.is_unix_address = address.starts_with("unix:");
                settings.server(|info| info.address(address));
                Ok(())
            }),
        },
        Flag {
            name: "--socket-mode",
            value: "MODE",
            help: "the mode of the Unix socket, in octal, such as 660 (by the umask)",
            setting: "socket_mode",
            apply: Server(|info, value| Ok(info.socket_mode(value.optional(Value::mode)?))),
        },
        Flag {
            name: "--http",
            value: "BACKEND",
            help: "what serves HTTP: tiny_http or native (tiny_http; native on a Unix socket and on a socket of systemd)",
            setting: "http_backend",
            apply: Server(|info, value| Ok(info.http_backend(value.parsed()?))),
        },
    ],
};
