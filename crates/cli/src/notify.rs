//! Telling the service manager where the daemon stands: datagrams to the socket that `NOTIFY_SOCKET` names, as `sd_notify(3)`
//! describes them. Without that variable nothing is sent.

use std::time::Duration;

/// How long a manager that is busy is waited for with what it must hear: that the daemon is at work, and that it ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where to tell, and how often it wants to hear that we live.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<std::ffi::OsString>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    pub(crate) fn from_env() -> Self {
        let watched =
            std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: micros.filter(|micros| watched && *micros > 0).map(Duration::from_micros),
        }
    }

    /// How often to say that we live: twice as often as is wanted.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|limit| (limit / 2).max(Duration::from_millis(1)))
    }

    /// The daemon is at work.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\n"), Some(PATIENCE));
    }

    /// What it does, in one line.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}\n"), None);
    }

    /// It ends.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}\n"), Some(PATIENCE));
    }

    /// It lives.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1\n", None);
    }

    /// Waits so long for room where the manager listens, or not at all.
    #[cfg(unix)]
    fn send(&self, text: &str, patience: Option<Duration>) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, text, patience)
        {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }

    #[cfg(not(unix))]
    fn send(&self, _: &str, _: Option<Duration>) {
        let _nowhere = &self.socket;
    }
}

#[cfg(unix)]
fn send(socket: &std::ffi::OsStr, text: &str, patience: Option<Duration>) -> std::io::Result<()> {
    use std::os::unix::net::UnixDatagram;
    let datagram = UnixDatagram::unbound()?;
    // Whoever manages us must not be able to hold us up.
    match patience {
        Some(patience) => datagram.set_write_timeout(Some(patience))?,
        None => datagram.set_nonblocking(true)?,
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        // A name in the abstract namespace begins with an @ in the place of a zero byte.
        if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            return datagram.send_to_addr(text.as_bytes(), &address).map(drop);
        }
    }
    datagram.send_to(text.as_bytes(), socket).map(drop)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_as_one_datagram_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let notify = Notify { socket: Some(path.into()), watchdog: Some(Duration::from_secs(10)) };
        notify.ready("1 schedule");
        notify.alive();
        notify.stopping("waits");
        let mut heard = Vec::new();
        for _ in 0..3 {
            let mut bytes = [0; 200];
            let length = socket.recv(&mut bytes).unwrap();
            heard.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
        }
        assert_eq!(
            heard,
            ["READY=1\nSTATUS=1 schedule\n", "WATCHDOG=1\n", "STOPPING=1\nSTATUS=waits\n"]
        );
        assert_eq!(notify.watchdog(), Some(Duration::from_secs(5)));
        // A queue that is full of signs of life keeps the end from nobody.
        for _ in 0..1000 {
            notify.alive();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| notify.stopping("waits"));
            let mut last = String::new();
            while !last.starts_with("STOPPING=1") {
                let mut bytes = [0; 200];
                let length = socket.recv(&mut bytes).unwrap();
                last = String::from_utf8(bytes[..length].to_vec()).unwrap();
            }
        });
        // Nobody there is no error.
        drop((socket, folder));
        notify.alive();
        Notify::default().alive();
    }
}
