//! Long polling inside a program's own tiny_http server, which has pages of its own, too.
//!
//! ```text
//! cargo run --example mounted_tiny_http -- 127.0.0.1:8080
//! ```
//!
//! Without an address, the program takes a free port, publishes an event, receives it, and ends.

#[path = "common/demonstration.rs"]
mod demonstration;

use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use long_polling::ServerInfo;
use long_polling::server::{Endpoints, Request, Response};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let endpoints = Endpoints::new(ServerInfo::default().health_uri("/health"))?;
    let server = tiny_http::Server::http(address.as_deref().unwrap_or("127.0.0.1:0"))
        .map_err(|error| error.to_string())?;
    let server = Arc::new(server);
    let url = format!("http://{}", server.server_addr());

    let (receiving, mounted) = (server.clone(), endpoints.clone());
    let receiver = thread::spawn(move || {
        for incoming in receiving.incoming_requests() {
            let mounted = mounted.clone();
            // A parked poll blocks its thread.
            thread::spawn(move || {
                if let Err(error) = serve(&mounted, incoming) {
                    eprintln!("a request failed: {error}");
                }
            });
        }
    });
    demonstration::run(&url, address.as_deref())?;

    // First, so that parked polls are answered.
    endpoints.stop(Duration::from_secs(10))?;
    server.unblock();
    receiver.join().map_err(|_| "the receiver panicked")?;
    println!("stopped");
    Ok(())
}

fn serve(endpoints: &Endpoints, mut incoming: tiny_http::Request) -> io::Result<()> {
    // No more than one byte past the limit: such a body is answered with 413.
    let limit = endpoints.max_body_size() as u64 + 1;
    let mut body = Vec::new();
    incoming.as_reader().take(limit).read_to_end(&mut body)?;

    let mut request = Request::new(incoming.method().as_str(), incoming.url()).with_body(body);
    for field in incoming.headers() {
        request = request.with_added_header(field.field.as_str().as_str(), field.value.as_str());
    }
    if let Some(address) = incoming.remote_addr() {
        request = request.with_remote_address(*address);
    }
    let response = if endpoints.serves(request.path()) {
        endpoints.answer(request)
    } else {
        page(&request)
    };
    let mut answer =
        tiny_http::Response::from_data(response.body).with_status_code(response.status);
    for (name, value) in &response.headers {
        if let Ok(field) = tiny_http::Header::from_bytes(name, value) {
            answer.add_header(field);
        }
    }
    incoming.respond(answer)
}

/// The program's own pages.
fn page(request: &Request) -> Response {
    match request.path() {
        "/" => Response::html(200, "<title>Events</title><p>A page of the program's own"),
        _ => Response::error(404, "not found"),
    }
}
