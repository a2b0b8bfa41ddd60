//! The chat's page, which the server serves besides its endpoints, and who is in each room.

use std::time::Duration;

use long_polling::server::{Request, Response};
use long_polling::{BrokerOptions, Presence, ServerInfo};
use serde_json::json;

/// What the category begins with that says who is in a room.
pub(crate) const PEOPLE: &str = "people/";

/// Nothing but this server's own files, and no page of another site around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the page, at `/`, the client that it uses, and the categories that say who is in a room. Someone has left a room
/// when `presence` has passed after the last poll.
pub(crate) fn serve(info: ServerInfo, presence: Duration) -> ServerInfo {
    let options = BrokerOptions::new()
        .presence(presence)
        .on_subscribe(publish_people)
        .on_leave(publish_people);
    info.broker(options)
        .before_publish(check_publish)
        .browser_client("/long-polling.js")
        .fallback(answer)
}

/// Publishes who is in a room, after someone has come or left.
fn publish_people(presence: &Presence) {
    let (room, broker) = (presence.category(), presence.broker());
    if room.starts_with(PEOPLE) {
        return;
    }
    let people = json!({
        "names": broker.subscriber_names(room),
        "subscribers": broker.subscribers(room),
    });
    if let Err(error) = broker.publish(&format!("{PEOPLE}{room}"), &people) {
        eprintln!("who is in {room:?} was not published: {}", error.report());
    }
}

/// Only the server says who is in a room.
fn check_publish(request: &Request) -> Result<(), Response> {
    match request.category() {
        Some(category) if category.starts_with(PEOPLE) => {
            Err(Response::error(403, "no room has such a name"))
        }
        _ => Ok(()),
    }
}

fn answer(request: &Request) -> Response {
    if request.method() != "GET" {
        return Response::error(405, "method not allowed").with_header("Allow", "GET, HEAD");
    }
    match request.path() {
        "/" => Response::html(200, include_str!("chat.html"))
            .with_header("Content-Security-Policy", POLICY)
            .with_header("Referrer-Policy", "same-origin"),
        "/chat.css" => Response::text(200, include_str!("chat.css"))
            .with_header("Content-Type", "text/css; charset=utf-8"),
        "/chat.js" => Response::text(200, include_str!("chat.js"))
            .with_header("Content-Type", "text/javascript; charset=utf-8"),
        _ => Response::error(404, "not found"),
    }
}
