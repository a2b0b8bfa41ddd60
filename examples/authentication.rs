//! The Go package's "Server with Authentication": a subscriber needs a token; a publisher needs a name and a password, and
//! may publish only to categories that begin with this name.
//!
//! Credentials stay secret only if TLS carries them: put a proxy with TLS before the server (page `deploying` of the
//! guide).

use std::time::Duration;

use long_polling::server::{Handler, Request, Response};
use long_polling::{
    Credentials, Cursor, Error, ErrorKind, Publisher, Server, ServerInfo, Subscriber,
};

fn main() -> Result<(), Error> {
    let server = Server::start(
        ServerInfo::new("127.0.0.1:0")
            .before_subscription(Handler::bearer_token("secret-token"))
            .before_publish(alice_in_her_own_categories()),
    )?;
    let url = format!("http://{}", server.local_addr());

    let stranger = Publisher::new(format!("{url}/publish"));
    report("a stranger", stranger.publish("alice.news", "Hello"));
    let alice = stranger.credentials(Credentials::basic("alice", "wonderland"));
    report(
        "Alice in Bob's category",
        alice.publish("bob.news", "Hello"),
    );
    report("Alice in her own", alice.publish("alice.news", "Hello"));

    let subscriber =
        || Subscriber::new(format!("{url}/events"), "alice.news").start_at(Cursor::Oldest);
    report("a subscriber without a token", first_event(subscriber()));
    let with_token = subscriber().credentials(Credentials::bearer("secret-token"));
    report("a subscriber with the token", first_event(with_token));

    server.stop(Duration::from_secs(10))
}

/// A hook of the program's own, which first calls a ready-made one.
fn alice_in_her_own_categories() -> impl Into<Handler> {
    let alice = Handler::basic_auth("alice", "wonderland");
    move |request: &Request| {
        alice.run(request)?;
        match request.category() {
            Some(category) if category.starts_with("alice.") => Ok(()),
            _ => Err(Response::error(403, "Alice publishes to alice.* only")),
        }
    }
}

fn first_event(mut subscriber: Subscriber) -> Result<(), Error> {
    match subscriber.next() {
        Some(event) => event.map(|event| println!("received: {}", event.text())),
        None => Ok(()),
    }
}

fn report<T>(who: &str, result: Result<T, Error>) {
    match result {
        Ok(_) => println!("{who}: allowed"),
        Err(error) if error.kind() == ErrorKind::Refused => {
            println!(
                "{who}: refused, status {}",
                error.status().unwrap_or_default()
            );
        }
        Err(error) => println!("{who}: {}", error.report()),
    }
}
