//! The Go package's "Client with Authentication": polls with a token, by a single call and by a [`Subscriber`].

mod common;

use std::time::Duration;

use long_polling::server::Handler;
use long_polling::{
    Credentials, Cursor, Error, Headers, ServerInfo, Subscriber, SubscriptionRequest, subscription,
};

fn main() -> Result<(), Error> {
    let (url, server) = common::server(
        ServerInfo::default().before_subscription(Handler::bearer_token("secret-token")),
    )?;
    if let Some(server) = &server {
        server.publish("notifications", "only with the token")?;
    }
    let url = format!("{url}/events");

    // A single poll. A status that refuses is an answer, not an error.
    let request = SubscriptionRequest::new("notifications")
        .timeout(Duration::from_secs(60))
        .since_time(1);
    let response = subscription(&url, None, &request, None, None)?;
    println!("without a token: status {}", response.status);

    // The token in a header field, as in the Go package.
    let headers = Headers::from([("Authorization", "Bearer secret-token")]);
    let response = subscription(&url, Some(&headers), &request, None, None)?;
    println!("with a header: status {}", response.status);
    for event in &response.events {
        println!("Event: {}", event.text());
    }

    // A subscriber retries and keeps its position. A wrong token ends it, because a repetition can't help.
    for token in ["wrong-token", "secret-token"] {
        let mut events = Subscriber::new(&url, "notifications")
            .credentials(Credentials::bearer(token))
            .start_at(Cursor::Oldest);
        match events.next() {
            Some(Ok(event)) => println!("{token}: {}", event.text()),
            Some(Err(error)) => println!("{token}: {}", error.report()),
            None => println!("{token}: the subscriber was stopped"),
        }
    }
    Ok(())
}
