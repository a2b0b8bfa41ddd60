//! The chat's page, which the server serves besides its endpoints.

use long_polling::ServerInfo;
use long_polling::server::{Request, Response};

/// Nothing but this server's own files, and no page of another site around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the page, at `/`, and the client that it uses.
pub(crate) fn serve(info: ServerInfo) -> ServerInfo {
    info.browser_client("/long-polling.js").fallback(answer)
}

fn answer(request: &Request) -> Response {
    if request.method() != "GET" {
        return Response::error(405, "method not allowed").with_header("Allow", "GET, HEAD");
    }
    match request.path() {
        "/" => Response::html(200, include_str!("chat.html"))
            .with_header("Content-Security-Policy", POLICY)
            .with_header("Referrer-Policy", "same-origin"),
        "/chat.css" => Response::text(200, include_str!("chat.css"))
            .with_header("Content-Type", "text/css; charset=utf-8"),
        "/chat.js" => Response::text(200, include_str!("chat.js"))
            .with_header("Content-Type", "text/javascript; charset=utf-8"),
        _ => Response::error(404, "not found"),
    }
}
