//! The Go package's "Multi-Category Subscription". The Go example has a thread for each category; here one poll follows all
//! of them, in publish order.

mod common;

use long_polling::{Cursor, Error, ServerInfo, Subscriber};

fn main() -> Result<(), Error> {
    let (url, server) = common::server(ServerInfo::default())?;
    if let Some(server) = &server {
        server.publish("notifications", "You have mail")?;
        server.publish("alerts", "The disk is almost full")?;
        server.publish("gossip", "No one follows this")?;
        server.publish("updates", "Version 2 is out")?;
        server.publish("notifications", "More mail")?;
    }

    let categories = ["notifications", "alerts", "updates"];
    let events = Subscriber::new(format!("{url}/events"), categories).start_at(Cursor::Oldest);
    for event in events.take(4) {
        let event = event?;
        println!("[{}] Event: {}", event.category(), event.text());
    }
    Ok(())
}
