//! Long polling inside a program's own oxhttp server, which has pages of its own, too.
//!
//! ```text
//! cargo run --example mounted_oxhttp -- 127.0.0.1:8080
//! ```
//!
//! Without an address, the program takes a free port, publishes an event, receives it, and ends.

#[path = "common/demonstration.rs"]
mod demonstration;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use long_polling::ServerInfo;
use long_polling::server::{Endpoints, Request};
use oxhttp::model::{Body, Method, Response, StatusCode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1);
    let address: SocketAddr = match &argument {
        Some(address) => address.parse()?,
        // oxhttp does not say which port it was given.
        None => TcpListener::bind("127.0.0.1:0")?.local_addr()?,
    };
    let endpoints = Endpoints::new(ServerInfo::default().health_uri("/health"))?;

    let mounted = endpoints.clone();
    // oxhttp has one thread for each connection, so that a poll may park there.
    let server = oxhttp::Server::new(move |incoming| match incoming.uri().path() {
        "/" => Response::builder()
            .header("Content-Type", "text/html; charset=utf-8")
            .body(Body::from(
                "<title>Events</title><p>A page of the program's own",
            ))
            .unwrap_or_else(|_| failed()),
        _ => serve(&mounted, incoming),
    });
    server
        .bind(address)
        .with_max_concurrent_connections(1000)
        .spawn()?;
    demonstration::run(&format!("http://{address}"), argument.as_deref())?;

    // The threads of oxhttp end with the process; no poll is parked in them any more.
    endpoints.stop(Duration::from_secs(10))?;
    println!("stopped");
    Ok(())
}

fn serve(endpoints: &Endpoints, incoming: &mut oxhttp::model::Request<Body>) -> Response<Body> {
    // No more than one byte past the limit: such a body is answered with 413.
    let limit = endpoints.max_body_size() as u64 + 1;
    let mut body = Vec::new();
    if incoming
        .body_mut()
        .take(limit)
        .read_to_end(&mut body)
        .is_err()
    {
        return failed();
    }
    // oxhttp does not pass on the client's address.
    let target = incoming.uri().to_string();
    let mut request = Request::new(incoming.method().as_str(), &target).with_body(body);
    for (name, value) in incoming.headers() {
        request =
            request.with_added_header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    let mut answer = endpoints.answer(request);
    if incoming.method() == Method::HEAD {
        // Other servers leave the body out themselves.
        answer.body.clear();
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(answer.body))
        .unwrap_or_else(|_| failed())
}

fn failed() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
