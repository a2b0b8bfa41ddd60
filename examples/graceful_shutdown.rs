//! The Go package's best practice 4, "Implement Graceful Shutdown": on SIGTERM, SIGHUP and Ctrl-C, the server answers its
//! parked subscribers, writes all events to the file, and stops.
//!
//! With an address as argument, the program serves until a signal arrives. Without one, it sends itself SIGTERM as soon as
//! a subscriber is parked.

#[path = "../src/bin/long-polling-server/signals.rs"]
mod signals;

use std::thread;
use std::time::Duration;

use long_polling::{FilePersistorInfo, Server, ServerInfo, SubscriptionRequest, subscription};
use signals::Signals;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before anything else starts, so that no signal is missed.
    let signals = Signals::handle()?;

    let address = std::env::args().nth(1);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.log");
    let server = Server::start(
        ServerInfo::new(address.clone().unwrap_or("127.0.0.1:0".into()))
            .file(FilePersistorInfo::new(&path)),
    )?;
    println!("listening on http://{}", server.local_addr());
    server.publish("notifications", "published before the stop")?;

    let subscriber = address.is_none().then(|| {
        let url = format!("http://{}/events", server.local_addr());
        thread::spawn(move || {
            let request = SubscriptionRequest::new("notifications");
            subscription(&url, None, &request, None, None)
        })
    });
    if subscriber.is_some() {
        while server.statistics().parked == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        println!("a subscriber is parked");
        signals.raise()?;
    }

    let signal = signals.wait();
    // Before anything is printed: after SIGHUP, there may be no terminal.
    server.stop(Duration::from_secs(10))?;
    println!("{signal}: stopped; the file contains:");
    print!("{}", std::fs::read_to_string(&path)?);

    if let Some(subscriber) = subscriber {
        let response = subscriber.join().map_err(|_| "the subscriber panicked")??;
        println!("the subscriber was answered: status {}", response.status);
    }
    Ok(())
}
