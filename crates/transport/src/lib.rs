//! TLS, certificates, peer identity and backoff.
