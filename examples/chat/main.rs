//! The Go package's "Complete Chat Application": each line of the input is a message, and a thread prints the messages
//! that arrive. The same server has a page for browsers.
//!
//! ```text
//! cargo run --example chat -- --server 127.0.0.1:8080
//! cargo run --example chat -- http://127.0.0.1:8080 Ann
//! ```
//!
//! The first command starts the server (without an address, on a free port), and others join it, in a terminal by the
//! second command, or in a browser at the address that it prints. A path after the address names a file that keeps the
//! messages over a restart. At the end of the input (Ctrl-D), the program waits until it has printed its own last message.
//!
//! The terminal is in the room "chat". Each room of the page is a category, and so is the list of who is in it. Someone with
//! a name, `Ann` above, is in that list by name, and anyone else as a guest.

mod page;

use std::error::Error;
use std::io::stdin;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use long_polling::{Cursor, Event, FilePersistorInfo, Publisher, Server, ServerInfo, Subscriber};
use serde_json::{Value, json};

const ROOM: &str = "chat";
/// Someone whose connection is lost for so long has left.
const PRESENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, name, _server) = match arguments.next() {
        Some(url) if url != "--server" => (url, arguments.next(), None),
        _ => {
            let info = ServerInfo::new(arguments.next().unwrap_or("127.0.0.1:0".into()));
            let info = match arguments.next() {
                Some(file) => info.file(FilePersistorInfo::new(file)),
                None => info,
            };
            let server = Server::start(page::serve(info, PRESENCE))?;
            let url = format!("http://{}", server.local_addr());
            println!("others join with: {url}");
            (url, None, Some(server))
        }
    };

    let (sender, printed) = mpsc::channel();
    let people = format!("{}{ROOM}", page::PEOPLE);
    // Starts with the earlier messages that the server still has.
    let messages =
        Subscriber::new(format!("{url}/events"), [ROOM, &people]).start_at(Cursor::Oldest);
    let messages = match &name {
        Some(name) => messages.name(name),
        None => messages,
    };
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let stopper = messages.stopper();
    let receiver = thread::spawn(move || {
        for message in messages {
            match message {
                // Who was here earlier is of no interest.
                Ok(list) if list.category() == people => {
                    if u128::from(list.timestamp()) >= started {
                        println!("{}", here(&list));
                    }
                }
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
        let text = line?;
        let data = match &name {
            Some(name) => json!({"from": name, "text": text}),
            None => text.into(),
        };
        match publisher.publish(ROOM, &data) {
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
    match message.decode::<Value>() {
        Ok(data) if data["from"].is_string() && data["text"].is_string() => format!(
            "{}: {}",
            data["from"].as_str().unwrap_or_default(),
            data["text"].as_str().unwrap_or_default()
        ),
        _ => format!("Message: {}", message.text()),
    }
}

/// Who is in the room.
fn here(list: &Event) -> String {
    let people: Value = list.decode().unwrap_or_default();
    let names = people["names"].as_array().into_iter().flatten();
    let mut all: Vec<String> = names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let subscribers = people["subscribers"].as_u64().unwrap_or(0);
    match subscribers.saturating_sub(all.len() as u64) {
        0 => {}
        1 => all.push("1 guest".into()),
        guests => all.push(format!("{guests} guests")),
    }
    format!("Here: {}", all.join(", "))
}
