//! The Go package's "Complete Chat Application": each line of the input is a message, and a thread prints the messages
//! that arrive. The same server has a page for browsers.
//!
//! ```text
//! cargo run --example chat -- --server 127.0.0.1:8080
//! cargo run --example chat -- http://127.0.0.1:8080
//! ```
//!
//! The first command starts the server (without an address, on a free port), and others join it, in a terminal by the
//! second command, or in a browser at the address that it prints. A path after the address names a file that keeps the
//! messages over a restart. At the end of the input (Ctrl-D), the program waits until it has printed its own last message.
//!
//! The terminal is in the room "chat". Each room of the page is a category.

mod page;

use std::error::Error;
use std::io::stdin;
use std::sync::mpsc;
use std::thread;

use long_polling::{Cursor, Event, FilePersistorInfo, Publisher, Server, ServerInfo, Subscriber};

const ROOM: &str = "chat";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, _server) = match arguments.next() {
        Some(url) if url != "--server" => (url, None),
        _ => {
            let info = ServerInfo::new(arguments.next().unwrap_or("127.0.0.1:0".into()));
            let info = match arguments.next() {
                Some(file) => info.file(FilePersistorInfo::new(file)),
                None => info,
            };
            let server = Server::start(page::serve(info))?;
            let url = format!("http://{}", server.local_addr());
            println!("others join with: {url}");
            (url, Some(server))
        }
    };

    let (sender, printed) = mpsc::channel();
    // Starts with the earlier messages that the server still has.
    let messages = Subscriber::new(format!("{url}/events"), ROOM).start_at(Cursor::Oldest);
    let stopper = messages.stopper();
    let receiver = thread::spawn(move || {
        for message in messages {
            match message {
                Ok(message) => {
                    println!("{}", line(&message));
                    let _ = sender.send(message.id());
                }
                Err(error) => eprintln!("{}", error.report()),
            }
        }
    });

    let publisher = Publisher::new(format!("{url}/publish"));
    let mut last = None;
    for line in stdin().lines() {
        match publisher.publish(ROOM, &line?) {
            Ok(response) => last = response.id,
            Err(error) => eprintln!("not sent: {}", error.report()),
        }
    }

    // If an error has ended the receiver, this returns at once.
    if let Some(last) = last {
        printed.iter().find(|id| *id == last);
    }
    stopper.stop();
    receiver.join().map_err(|_| "the receiver panicked")?;
    Ok(())
}

/// A message of the page has a sender, one of a terminal is a text.
fn line(message: &Event) -> String {
    match message.decode::<serde_json::Value>() {
        Ok(data) if data["from"].is_string() && data["text"].is_string() => format!(
            "{}: {}",
            data["from"].as_str().unwrap_or_default(),
            data["text"].as_str().unwrap_or_default()
        ),
        _ => format!("Message: {}", message.text()),
    }
}
