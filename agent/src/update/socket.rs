//! The listening socket over a change of programs: whoever connects meanwhile waits instead of being
//! turned away.

use super::exec::Next;
use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// Number of the socket's descriptor, for the program that follows.
const SOCKET: &str = "SANDPIPER_AGENT_SOCKET";

/// Lets the program that follows have the socket. It stays open whichever program that is.
pub(super) fn pass(socket: Option<&OwnedFd>, next: &mut Next) {
    next.set(SOCKET, None);
    if let Some(socket) = socket {
        match fcntl_setfd(socket, FdFlags::empty()) {
            Ok(()) => next.set(SOCKET, Some(socket.as_raw_fd().to_string().into())),
            Err(error) => tracing::warn!("connections are turned away for a moment: {error}"),
        }
    }
}

/// The socket that the program before listened on, if it did on this address. To be called once,
/// before anything else is started.
pub fn inherited(address: SocketAddr) -> Option<TcpListener> {
    let number: RawFd = std::env::var(SOCKET).ok()?.parse().ok()?;
    // A number that is no descriptor of ours, or one of the standard ones, is a mistake of whoever
    // set the variable.
    let known = std::path::Path::new("/proc/self/fd").join(number.to_string());
    if number <= 2 || !known.exists() {
        return None;
    }
    // SAFETY: the descriptor is open, and nobody in this program knows of it: `pass` has left it to
    // the program that this is, which begins with this call.
    #[allow(unsafe_code)]
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    match adopt(socket, address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!("the socket of the program before is of no use: {error}");
            None
        }
    }
}

fn adopt(socket: OwnedFd, address: SocketAddr) -> io::Result<TcpListener> {
    // Not for runners.
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let listener = TcpListener::from(socket);
    let found = listener.local_addr()?;
    if found != address {
        return Err(io::Error::other(format!(
            "it listens on {found} and not on {address}"
        )));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}
