//! The agent of Sandpiper: runs on each device.
