//! The Go package's "Basic Client Subscription": follows a category of the server at the URL given as argument, or of a
//! server of its own.
//!
//! [`Subscriber`] retries, waits between two attempts, and keeps the position between two polls.

mod common;

use long_polling::{Cursor, Error, ServerInfo, Subscriber};

fn main() -> Result<(), Error> {
    let (url, server) = common::server(ServerInfo::default())?;
    if let Some(server) = &server {
        for text in ["Hello", "How are you?", "Bye"] {
            server.publish("notifications", text)?;
        }
    }

    // Starts with the oldest event that the server still has. The default is `Cursor::Now`.
    let events = Subscriber::new(format!("{url}/events"), "notifications")
        .start_at(Cursor::Oldest)
        .on_retry(|error| eprintln!("trying again: {}", error.report()));
    // Without `take`, this loop follows the category forever.
    for event in events.take(3) {
        match event {
            Ok(event) => println!("Event: {} - {}", event.category(), event.text()),
            // The server no longer has the next events. Those after this gap are complete.
            Err(gap) if gap.is_gap() => eprintln!("{gap}"),
            // An error that a retry can't help, such as a wrong URL. It is the last item.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
