//! The cryptography of TLS.

use rustls::crypto::{CryptoProvider, ring};

/// Installs ring's cryptography, unless the program has installed another: without one, a connection would panic.
pub(super) fn provide() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = ring::default_provider().install_default();
    }
}
