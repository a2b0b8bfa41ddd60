//! The Go package's "Complete Chat Application": each line of the input is a message, and a thread prints the messages
//! that arrive.
//!
//! ```text
//! cargo run --example chat -- --server 127.0.0.1:8080
//! cargo run --example chat -- http://127.0.0.1:8080
//! ```
//!
//! The first command starts the server (without an address, on a free port), and others join it. At the end of the input
//! (Ctrl-D), the program waits until it has printed its own last message.

use std::error::Error;
use std::io::stdin;
use std::sync::mpsc;
use std::thread;

use long_polling::{Cursor, Publisher, Server, ServerInfo, Subscriber};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, _server) = match arguments.next() {
        Some(url) if url != "--server" => (url, None),
        _ => {
            let info = ServerInfo::new(arguments.next().unwrap_or("127.0.0.1:0".into()));
            let server = Server::start(info)?;
            let url = format!("http://{}", server.local_addr());
            println!("others join with: {url}");
            (url, Some(server))
        }
    };

    let (sender, printed) = mpsc::channel();
    // Starts with the earlier messages that the server still has.
    let messages = Subscriber::new(format!("{url}/events"), "chat").start_at(Cursor::Oldest);
    let stopper = messages.stopper();
    let receiver = thread::spawn(move || {
        for message in messages {
            match message {
                Ok(message) => {
                    println!("Message: {}", message.text());
                    let _ = sender.send(message.id());
                }
                Err(error) => eprintln!("{}", error.report()),
            }
        }
    });

    let publisher = Publisher::new(format!("{url}/publish"));
    let mut last = None;
    for line in stdin().lines() {
        match publisher.publish("chat", &line?) {
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
