//! All parts in one program: a server with a file, a client that follows a category, a client that publishes to it, and a
//! restart of the server between two events. No event is lost.
//!
//! The exit status is 1 if an event was lost.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use long_polling::{Cursor, FilePersistorInfo, Publisher, Server, ServerInfo, Subscriber};

const EVENTS: [&str; 4] = ["one", "two", "three", "four"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    // Port 0 takes a free port.
    let info = ServerInfo::new("127.0.0.1:0")
        .file(FilePersistorInfo::new(folder.path().join("events.log")));
    let server = Server::start(info.clone())?;
    let address = server.local_addr();
    let url = format!("http://{address}");
    println!("listening on {url}");

    // A subscriber is an iterator that blocks for the next event, so it gets a thread of its own.
    let subscriber = Subscriber::new(format!("{url}/events"), "numbers").start_at(Cursor::Oldest);
    let stopper = subscriber.stopper();
    let (sender, arrived) = mpsc::channel();
    let follower = thread::spawn(move || {
        for event in subscriber {
            match event {
                Ok(event) => _ = sender.send(event.text().into_owned()),
                Err(error) => eprintln!("{}", error.report()),
            }
        }
    });
    let receives = |expected: &[&str]| {
        expected.iter().all(|expected| {
            let text = arrived.recv_timeout(Duration::from_secs(10));
            println!("arrived: {}", text.as_deref().unwrap_or("nothing"));
            text.as_deref() == Ok(expected)
        })
    };

    let publisher = Publisher::new(format!("{url}/publish"));
    for text in &EVENTS[..2] {
        publisher.publish("numbers", text)?;
    }
    let before = receives(&EVENTS[..2]);

    // The stop answers the subscriber's poll. The subscriber then retries, and continues at its position.
    server.stop(Duration::from_secs(10))?;
    println!("stopped");
    let server = Server::start(info.address(address.to_string()))?;
    println!("listening on {url} again");
    for text in &EVENTS[2..] {
        server.publish("numbers", text)?;
    }
    let after = receives(&EVENTS[2..]);
    stopper.stop();
    follower.join().map_err(|_| "the follower panicked")?;

    // The events from before the restart come from the file.
    let batch = server.subscribe("numbers", Cursor::Oldest, Duration::ZERO)?;
    let held: Vec<_> = batch.events().iter().map(|event| event.text()).collect();
    println!("the server holds: {}", held.join(", "));
    server.stop(Duration::from_secs(10))?;

    if before && after && held == EVENTS {
        println!("nothing was lost");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("something was lost");
        Ok(ExitCode::FAILURE)
    }
}
