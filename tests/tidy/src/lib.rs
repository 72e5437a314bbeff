//! The style of this repository as an ordinary test.
