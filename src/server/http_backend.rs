//! [`HttpBackend`]: which HTTP implementation serves.

use crate::text::named_values;

#[cfg(not(any(feature = "server", feature = "native-http")))]
compile_error!("a server needs an HTTP backend: enable the feature `server` or `native-http`");

/// What reads and writes the connections of a server; [`ServerInfo::http_backend`](crate::ServerInfo::http_backend) sets it.
///
/// Both speak the same API, run the same hooks and have the same settings, apart from what the settings' own docs say.
///
/// As text, for flags and configuration files: `tiny_http` or `native`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpBackend {
    /// The crate tiny_http, with the feature `server`: for trusted networks, or behind a proxy that checks requests.
    #[cfg(feature = "server")]
    TinyHttp,
    /// One thread for each connection, on std and the parser httparse, with the feature `native-http`. Each part of a
    /// request and each answer has a time limit and a size limit.
    #[cfg(feature = "native-http")]
    Native,
}

named_values!(HttpBackend, "an HTTP backend of this build", {
    #[cfg(feature = "server")]
    TinyHttp = "tiny_http",
    #[cfg(feature = "native-http")]
    Native = "native",
});

impl Default for HttpBackend {
    /// tiny_http where the crate is built with it, otherwise the native backend.
    fn default() -> Self {
        #[cfg(feature = "server")]
        return HttpBackend::TinyHttp;
        #[cfg(not(feature = "server"))]
        return HttpBackend::Native;
    }
}
