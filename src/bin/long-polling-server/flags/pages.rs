//! The flags for web pages.

use long_polling::server::Cors;

use super::Apply::{Server, Settings};
use super::{Flag, Topic};

pub(super) const TOPIC: Topic = Topic {
    title: "Web pages",
    flags: &[
        Flag {
            name: "--browser-client",
            value: "PATH",
            help: "serve the JavaScript client here, for example at /long-polling.js (not)",
            setting: "browser_client",
            apply: Server(|info, value| Ok(info.browser_client(value.text()?))),
        },
        Flag {
            name: "--cors-origin",
            value: "ORIGIN",
            help: "let web pages of this origin, such as https://example.com, or of every one with \"*\", poll and publish; may \
                   be repeated, or a list with commas (pages of the server's own origin)",
            setting: "cors",
            apply: Server(|info, value| {
                let cors = Cors::new().origins(value.list::<String>()?);
                let credentials = match value.of("--cors-credentials") {
                    Some(value) => value.is_on()?,
                    None => false,
                };
                Ok(info.cors(cors.credentials(credentials)))
            }),
        },
        Flag {
            name: "--cors-credentials",
            value: "",
            help: "let pages of --cors-origin send cookies and HTTP authentication",
            setting: "cors_credentials",
            apply: Settings(
                |_, value| match (value.is_on()?, value.of("--cors-origin")) {
                    (true, None) => Err(
                        "has no effect without --cors-origin: give --cors-origin ORIGIN too".into(),
                    ),
                    _ => Ok(()),
                },
            ),
        },
        Flag {
            name: "--host",
            value: "HOST",
            help: "answer requests for this host, such as events.example.com, and no other; \"*\" for every host; may be \
                   repeated, or a list with commas (every host; on a loopback address, the loopback names)",
            setting: "hosts",
            apply: Server(|info, value| Ok(info.hosts(value.list::<String>()?))),
        },
    ],
};
