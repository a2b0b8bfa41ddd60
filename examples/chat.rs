//! The Go package's "Complete Chat Application": each line of the input is a message, and a thread shows what arrives.
//!
//! ```text
//! cargo run --example chat -- --server 127.0.0.1:8080
//! cargo run --example chat -- http://127.0.0.1:8080
//! ```
//!
//! The first brings the server (without an address, or without any argument, on a free port), the others join. At the
//! end of the input (Ctrl-D) it waits until its own messages have been shown.

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

    let (sender, shown) = mpsc::channel();
    // What was said before is shown first, as far as the server still has it.
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

    // An error ends the receiver, and then there is nothing more to wait for.
    if let Some(last) = last {
        shown.iter().find(|id| *id == last);
    }
    stopper.stop();
    receiver.join().map_err(|_| "the receiver panicked")?;
    Ok(())
}
