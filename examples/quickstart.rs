//! The whole of it in one program: a server with a file, a client that follows a category and one that publishes to it,
//! and a restart of the server between two events, at which nothing is lost.
//!
//! It exits with status 1 if something was lost.
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
    let file = FilePersistorInfo::new(folder.path().join("events.log"));

    // Port 0 is a free one.
    let info = ServerInfo::new("127.0.0.1:0").file(file);
    let server = Server::start(info.clone())?;
    let address = server.local_addr();
    let url = format!("http://{address}");
    println!("listening on {url}");

    // A subscriber is an iterator that waits for the next event, so it has a thread of its own.
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
    let shows = |expected: &[&str]| {
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
    let before = shows(&EVENTS[..2]);

    // The subscriber is answered, tries again, and goes on where it was.
    server.stop(Duration::from_secs(10))?;
    println!("stopped");
    let server = Server::start(info.address(address.to_string()))?;
    println!("listening on {url} again");
    for text in &EVENTS[2..] {
        server.publish("numbers", text)?;
    }
    let after = shows(&EVENTS[2..]);
    stopper.stop();
    follower.join().map_err(|_| "the follower panicked")?;

    // What was published before the restart came out of the file.
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
