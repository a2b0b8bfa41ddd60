//! What the examples of mounted endpoints do once their server listens.

use std::io;

use long_polling::{Cursor, Error, Publisher, Subscriber};

/// Serves until someone presses Enter, or until the input ends, if the program was given an address. Otherwise publishes an
/// event to the server at this URL, and follows it.
pub(crate) fn run(url: &str, address: Option<&str>) -> Result<(), Error> {
    println!("listening on {url}");
    if address.is_some() {
        println!("press Enter to stop");
        // An error ends the program, too.
        let _ = io::stdin().read_line(&mut String::new());
        return Ok(());
    }
    Publisher::new(format!("{url}/publish")).publish("notifications", "Hello")?;
    let mut events =
        Subscriber::new(format!("{url}/events"), "notifications").start_at(Cursor::Oldest);
    if let Some(event) = events.next() {
        println!("received: {}", event?.text());
    }
    Ok(())
}
