//! The Go package's "Client Publishing Events": publishes to the server at the URL given as argument, or to a server of
//! its own.

mod common;

use std::time::Duration;

use long_polling::{Error, ErrorKind, PublishRequest, Publisher, ServerInfo, publish};
use serde::Serialize;

#[derive(Serialize)]
struct Alert {
    message: &'static str,
    minutes: u32,
}

fn main() -> Result<(), Error> {
    let (url, _server) = common::server(ServerInfo::default())?;
    let url = format!("{url}/publish");

    // A single call, as in the Go package. A status that refuses is an answer, not an error.
    let request = PublishRequest::new(
        "notifications",
        r#"{"type": "alert", "message": "System maintenance"}"#,
    );
    let response = publish(&url, Duration::from_secs(10), None, &request, None, None)?;
    if response.status == 200 {
        println!("Event published successfully: {}", response.body);
    }

    // A publisher, for more than one event. Here a refusal is an error.
    let publisher = Publisher::new(&url).timeout(Duration::from_secs(5));
    publisher.publish("notifications", "A text is a JSON string")?;
    let alert = Alert {
        message: "System maintenance",
        minutes: 30,
    };
    let response = publisher.publish("notifications", &alert)?;
    println!("published: {}", response.success());

    match publisher.publish("", "Where to?") {
        Err(error) if error.kind() == ErrorKind::InvalidRequest => {
            println!("not sent: {}", error.report())
        }
        other => println!("{other:?}"),
    }
    Ok(())
}
