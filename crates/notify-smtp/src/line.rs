//! The connection: bytes within a time, then answers.
//!
//! ```text
//!   TcpStream ─ Timed ─┬─ plain ─┬─ Line: a command, an answer
//!                      └─ TLS ───┘
//! ```

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::response::Response;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use stillpoint_context::Cx;

/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 * 1024;

/// The shortest time that a socket can be given.
const SHORTEST: Duration = Duration::from_millis(1);

/// Why nothing more is said over a connection.
#[derive(Debug)]
pub(crate) enum Broke {
    /// There is no server of that name.
    Nowhere,
    /// There was no time left, or the call was cancelled.
    Late,
    /// It was not made sure who the server is.
    Untrusted(rustls::Error),
    /// What it answered is no answer.
    Garbled,
    /// The connection.
    Io(ErrorKind),
}

impl From<io::Error> for Broke {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (tls, error.kind()) {
            (Some(tls), _) => Self::Untrusted(tls.clone()),
            (None, ErrorKind::WouldBlock | ErrorKind::TimedOut) => Self::Late,
            (None, kind) => Self::Io(kind),
        }
    }
}

impl Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("there is no server of that name"),
            Self::Late => f.write_str("it did not answer in time"),
            Self::Untrusted(error) => write!(f, "it could not be made sure who it is: {error}"),
            Self::Garbled => f.write_str("what it answers is not understood"),
            Self::Io(kind) => write!(f, "the connection broke ({kind})"),
        }
    }
}

/// A connection each of whose reads and writes ends by the deadline of the call.
struct Timed {
    stream: TcpStream,
    cx: Cx,
}

/// What is left of the time.
fn left(cx: &Cx) -> io::Result<Option<Duration>> {
    cx.check().map_err(|_| io::Error::from(ErrorKind::TimedOut))?;
    Ok(cx.remaining().map(|left| left.max(SHORTEST)))
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(left(&self.cx)?)?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(left(&self.cx)?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// What commands are sent over.
pub(crate) struct Line {
    stream: Stream,
    /// What was read and is of no answer yet.
    unread: Vec<u8>,
}

impl Line {
    /// Connects, to the first of the addresses of the server that somebody listens at.
    pub(crate) fn connect(cx: &Cx, server: &str, port: u16) -> Result<Self, Broke> {
        let mut last = Broke::Nowhere;
        for address in (server, port).to_socket_addrs().map_err(|_| Broke::Nowhere)? {
            let stream = match left(cx)? {
                Some(time) => TcpStream::connect_timeout(&address, time),
                None => TcpStream::connect(address),
            };
            match stream {
                Ok(stream) => {
                    let stream = Stream::Plain(Timed { stream, cx: cx.clone() });
                    return Ok(Self { stream, unread: Vec::new() });
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// The same under TLS, which is agreed upon with the next byte. What was said in the clear and not asked for is not taken over.
    pub(crate) fn secured(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Broke> {
        let Stream::Plain(stream) = self.stream else { return Ok(self) };
        if !self.unread.is_empty() {
            return Err(Broke::Garbled);
        }
        let connection = ClientConnection::new(config, name).map_err(Broke::Untrusted)?;
        let stream = Stream::Tls(Box::new(StreamOwned::new(connection, stream)));
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends a command, and gives its answer.
    pub(crate) fn ask(&mut self, command: impl Display) -> Result<Response, Broke> {
        self.say(command.to_string().as_bytes())?;
        self.answer()
    }

    /// Sends bytes.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Result<(), Broke> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream,
        };
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// The next answer, of one line or several.
    pub(crate) fn answer(&mut self) -> Result<Response, Broke> {
        let mut text = String::new();
        loop {
            let mut line = self.line()?;
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            if line.len() == 3 {
                // A code alone, which is read as one with nothing after it.
                line.push(' ');
            }
            text.push_str(&line);
            text.push_str("\r\n");
            if is_last {
                return text.parse().map_err(|_| Broke::Garbled);
            }
            if text.len() > LONGEST {
                return Err(Broke::Garbled);
            }
        }
    }

    fn line(&mut self) -> Result<String, Broke> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.unread.len() > LONGEST {
                return Err(Broke::Garbled);
            }
            let mut bytes = [0; 1024];
            let got = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut bytes),
                Stream::Tls(stream) => stream.read(&mut bytes),
            };
            match got {
                Ok(0) => return Err(Broke::Io(ErrorKind::UnexpectedEof)),
                Ok(count) => self.unread.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
