//! The Go package's "Server with Authentication": who follows needs a token, and who publishes a name and a password,
//! and then may publish to categories of that name only.
//!
//! Credentials are secret where TLS carries them: in a proxy before the server (page `deploying` of the guide).

use std::time::Duration;

use long_polling::server::{Handler, Response};
use long_polling::{
    Credentials, Cursor, Error, ErrorKind, Publisher, Server, ServerInfo, Subscriber,
};

fn main() -> Result<(), Error> {
    let info = ServerInfo::new("127.0.0.1:0")
        .before_subscription(Handler::bearer_token("secret-token"))
        .before_publish(alice_to_her_own_categories());
    let server = Server::start(info)?;
    let url = format!("http://{}", server.local_addr());

    let stranger = Publisher::new(format!("{url}/publish"));
    tell("a stranger", stranger.publish("alice.news", "Hello"));
    let alice = stranger.credentials(Credentials::basic("alice", "wonderland"));
    tell("alice, elsewhere", alice.publish("bob.news", "Hello"));
    tell("alice, at home", alice.publish("alice.news", "Hello"));

    let stranger =
        || Subscriber::new(format!("{url}/events"), "alice.news").start_at(Cursor::Oldest);
    tell("a follower without a token", first(stranger()));
    let follower = stranger().credentials(Credentials::bearer("secret-token"));
    tell("a follower with the token", first(follower));

    server.stop(Duration::from_secs(10))
}

/// A handler of the program's own, on top of a ready-made one.
fn alice_to_her_own_categories() -> Handler {
    let alice = Handler::basic_auth("alice", "wonderland");
    Handler::new(move |request| {
        alice.run(request)?;
        match request.category() {
            Some(category) if category.starts_with("alice.") => Ok(()),
            _ => Err(Response::error(403, "alice publishes to alice.* only")),
        }
    })
}

fn first(mut subscriber: Subscriber) -> Result<(), Error> {
    match subscriber.next() {
        Some(event) => event.map(|event| println!("arrived: {}", event.text())),
        None => Ok(()),
    }
}

fn tell<T>(who: &str, result: Result<T, Error>) {
    match result {
        Ok(_) => println!("{who}: may"),
        Err(error) if error.kind() == ErrorKind::Refused => {
            println!("{who}: status {}", error.status().unwrap_or_default());
        }
        Err(error) => println!("{who}: {error}"),
    }
}
