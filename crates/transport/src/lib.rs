//! How the parts of a fleet reach and recognise each other: certificates, signatures, join
//! tokens, TLS on both ends, and files that survive a power cut.
//!
//! | module | what it holds |
//! |---|---|
//! | [`identity`] | who a certificate speaks for |
//! | [`pki`] | the fleet's certificate authority, key pairs, certificate requests |
//! | [`signing`] | Ed25519 signatures of documents, bound to a purpose |
//! | [`token`] | the string that lets a device join |
//! | [`server`] | the TLS side of a listener, reloaded without dropping a stream |
//! | [`client`] | the TLS side of a channel, with the fleet's authority as only root |
//! | [`fsio`] | files written atomically and durably |

pub mod client;
pub mod fsio;
pub mod identity;
mod pem;
pub mod pki;
pub mod server;
pub mod signing;
mod tls;
pub mod token;
