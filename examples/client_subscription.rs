//! The Go package's "Basic Client Subscription": follows a category, of the server at the URL given as argument or of
//! one of its own.
//!
//! Retries, their backoff and the position between two polls are [`Subscriber`]'s work.

mod common;

use long_polling::{Cursor, Error, ServerInfo, Subscriber};

fn main() -> Result<(), Error> {
    let (url, server) = common::server(ServerInfo::default())?;
    if let Some(server) = &server {
        for text in ["Hello", "How are you?", "Bye"] {
            server.publish("notifications", text)?;
        }
    }

    // From the oldest event that the server still has; `Cursor::Now` is the default.
    let events = Subscriber::new(format!("{url}/events"), "notifications")
        .start_at(Cursor::Oldest)
        .on_retry(|error| eprintln!("trying again: {}", error.report()));
    // Without `take`, it follows for ever.
    for event in events.take(3) {
        match event {
            Ok(event) => println!("Event: {} - {}", event.category(), event.text()),
            // The server no longer had what came next; what follows is complete again.
            Err(gap) if gap.is_gap() => eprintln!("{gap}"),
            // What can't mend itself: a wrong URL, say. It is the last item.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
