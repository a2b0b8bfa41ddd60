//! The Go package's "Basic Server": serves until someone presses Enter, or until the input ends.
//!
//! ```text
//! cargo run --example basic_server -- 127.0.0.1:8080
//! ```

use std::time::Duration;

use long_polling::{Cursor, Server, ServerInfo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without an argument, a free port.
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::start(
        ServerInfo::new(address)
            .timeout(Duration::from_secs(120))
            .subscription_uri("/events")
            .publish_uri("/publish")
            .on_failure(|error| eprintln!("serving failed: {}", error.report())),
    )?;
    println!("listening on http://{}", server.local_addr());

    // The program itself publishes and subscribes without HTTP.
    server.publish("notifications", "the server has started")?;
    let batch = server.subscribe("notifications", Cursor::Oldest, Duration::from_secs(1))?;
    for event in &*batch {
        println!("{}: {}", event.category(), event.text());
    }

    println!("press Enter to stop");
    std::io::stdin().read_line(&mut String::new())?;
    server.stop(Duration::from_secs(10))?;

    let statistics = server.statistics();
    println!(
        "{} published, {} delivered",
        statistics.published, statistics.delivered
    );
    Ok(())
}
