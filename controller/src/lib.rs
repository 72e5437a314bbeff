//! The controller of Sandpiper and its command line.
