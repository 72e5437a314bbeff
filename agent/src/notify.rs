//! Tells the service manager that the agent is ready, and lives: the datagram protocol of
//! `sd_notify(3)`. Without a service manager nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// Ticks twice within the time after which the manager takes the agent for dead.
    watchdog: Option<Interval>,
}

impl Notifier {
    /// By the environment that a service manager gives: `NOTIFY_SOCKET`, `WATCHDOG_USEC`. Must
    /// be called within a runtime.
    pub fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        let usec = std::env::var("WATCHDOG_USEC").ok();
        Self::new(socket.as_deref(), usec.as_deref())
    }

    fn new(socket: Option<&OsStr>, watchdog_usec: Option<&str>) -> Self {
        let socket = socket.and_then(|name| match connect(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!("the service manager is not told anything: {error}");
                None
            }
        });
        let within = watchdog_usec.and_then(|t| t.parse::<u64>().ok());
        let within = within.filter(|us| *us >= 2 && socket.is_some());
        let watchdog = within.map(|us| {
            let mut interval = tokio::time::interval(Duration::from_micros(us / 2));
            // After a pause one word is enough.
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self { socket, watchdog }
    }

    /// The models of the disk are being started and requests are taken.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The main loop has come round.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The agent ends because it was asked to.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The time after which the manager takes a silent agent for dead, if it watches.
    pub fn within(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|interval| 2 * interval.period())
    }

    /// Resolves when the manager should hear from the main loop; never without a watchdog.
    pub async fn due(&mut self) {
        match &mut self.watchdog {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    fn send(&self, word: &str) {
        let Some(socket) = &self.socket else { return };
        // The socket does not block: a manager that does not read must not stop the agent.
        if let Err(error) = socket.send(word.as_bytes()) {
            tracing::warn!("the service manager was not told {word}: {error}");
        }
    }
}

/// A name that begins with `@` is one without a file.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    #[tokio::test]
    async fn the_manager_hears_that_it_is_ready_lives_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(Some(path.as_os_str()), Some("2000"));
        notifier.ready();
        assert_eq!(heard(&manager), "READY=1");
        for _ in 0..3 {
            notifier.due().await;
            notifier.alive();
            assert_eq!(heard(&manager), "WATCHDOG=1");
        }
        let period = notifier.watchdog.as_ref().map(Interval::period);
        assert_eq!(period, Some(Duration::from_millis(1)));
        notifier.stopping();
        assert_eq!(heard(&manager), "STOPPING=1");
    }

    #[tokio::test]
    async fn a_name_without_a_file() {
        let name = format!("sandpiper-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let name = format!("@{name}");
        Notifier::new(Some(OsStr::new(&name)), None).ready();
        assert_eq!(heard(&manager), "READY=1");
    }

    #[tokio::test]
    async fn without_a_manager_it_never_falls_due() {
        let gone = OsStr::new("/nonexistent/notify");
        for socket in [None, Some(gone)] {
            let mut notifier = Notifier::new(socket, Some("1000000"));
            notifier.ready();
            // The first tick of an interval is due at once: polled once, it would be ready.
            tokio::select! {
                biased;
                () = notifier.due() => panic!("a word is due, and nobody hears it"),
                () = std::future::ready(()) => {}
            }
        }
    }
}
