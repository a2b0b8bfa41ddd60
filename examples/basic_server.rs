//! The Go package's "Basic Server": it serves until Enter is pressed, or its input ends.
//!
//! ```text
//! cargo run --example basic_server -- 127.0.0.1:8080
//! ```

use std::time::Duration;

use long_polling::{Cursor, Server, ServerInfo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let info = ServerInfo::new(std::env::args().nth(1).unwrap_or("127.0.0.1:0".into()))
        .timeout(Duration::from_secs(120))
        .subscription_uri("/events")
        .publish_uri("/publish");
    // Told if serving should end later for another reason than `stop`.
    let failed = |error: long_polling::Error| eprintln!("serving failed: {}", error.report());
    let server = Server::start(info.on_failure(failed))?;
    println!("listening on http://{}", server.local_addr());

    // The program itself needs no HTTP to publish and to follow.
    server.publish("notifications", "the server is up")?;
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
