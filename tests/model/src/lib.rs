//! A rollout twice: as the core does it, and as one would explain it; and every order of events
//! that a small fleet can go through.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@reference`] | a rollout without counts, store or effects; `tests/reference.rs` holds the core against it |
//! | [`protocol`] | two controllers, three devices and a network, of which every state is visited |
//! | [`fixtures`] | the documents of both |

pub mod fixtures;
pub mod protocol;
pub mod reference;
