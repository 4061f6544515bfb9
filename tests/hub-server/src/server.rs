//! Ports, threads, connections.

use crate::{
    faults::{self, What},
    http::{Body, Reply, Request, Side},
    routes,
    state::State,
    tls::{self, Certificate, Channel},
};
use rustls::ServerConfig;
use std::{
    io::{self, BufReader, BufWriter, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;

/// A running server: two ports on this machine, until it is dropped.
pub struct Server {
    state: Arc<State>,
    stop: Arc<AtomicBool>,
    ports: Vec<u16>,
}

impl Server {
    /// Starts on free ports.
    ///
    /// # Panics
    /// Where this machine has no port to give.
    pub fn start() -> Self {
        Self::start_on(0).expect("a free port")
    }

    /// Starts on free ports, encrypted.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_tls(shown: Certificate) -> Self {
        Self::begin(0, Some(&tls::config(shown))).expect("a free port")
    }

    /// Starts on a port; the content network gets a free one.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn start_on(port: u16) -> io::Result<Self> {
        Self::begin(port, None)
    }

    fn begin(port: u16, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let (hub, cdn) = (TcpListener::bind(("127.0.0.1", port))?, TcpListener::bind(("127.0.0.1", 0))?);
        let ports = vec![hub.local_addr()?.port(), cdn.local_addr()?.port()];
        let state = Arc::new(State::default());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |port: u16| format!("{scheme}://127.0.0.1:{port}");
        state.urls.set((url(ports[0]), url(ports[1]))).expect("set once");
        let stop = Arc::new(AtomicBool::new(false));
        for (listener, side) in [(hub, Side::Hub), (cdn, Side::Cdn)] {
            let (state, stop, tls) = (Arc::clone(&state), Arc::clone(&stop), tls.cloned());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Ok(stream) = stream {
                        let (state, tls) = (Arc::clone(&state), tls.clone());
                        // Whatever a client does to its connection is its own affair.
                        thread::spawn(move || {
                            drop(Channel::new(stream, tls.as_ref()).and_then(|c| serve(c, side, &state)));
                        });
                    }
                }
            });
        }
        Ok(Self { state, stop, ports })
    }

    /// URL of the Hub.
    pub fn url(&self) -> &str {
        self.state.hub()
    }
    /// What it knows.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for port in &self.ports {
            // Wakes the thread that waits for connections.
            drop(TcpStream::connect(("127.0.0.1", *port)));
        }
    }
}

/// Answers what comes on one connection, until it is closed.
fn serve(channel: Channel, side: Side, state: &State) -> io::Result<()> {
    let mut from = BufReader::new(channel);
    while let Some(request) = Request::read(&mut from, side)? {
        let close = request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if !answer(from.get_mut(), &request, state)? || close {
            break;
        }
    }
    from.get_mut().close()
}

/// Whether the connection goes on.
fn answer(channel: &mut Channel, request: &Request, state: &State) -> io::Result<bool> {
    let fault = faults::hit(&mut state.faults(), request);
    let mut request = request.clone();
    if let Some(What::IgnoreRange) = fault {
        request.headers.retain(|(k, _)| k != "range");
    }
    let mut reply = match &fault {
        Some(What::Drop) => {
            state.note(&request, 0, 0);
            return Ok(false);
        }
        Some(What::Answer(status, headers, text)) => {
            let mut reply = Reply::json(*status, &serde_json::json!({ "error": text }));
            reply.headers.extend(headers.iter().cloned());
            reply
        }
        Some(What::Say(bytes, headers)) => {
            let mut reply = Reply::new(200).header("content-type", "application/json");
            reply.headers.extend(headers.iter().cloned());
            Reply { body: Body::Bytes(bytes.to_vec()), ..reply }
        }
        _ => routes::route(state, &request),
    };
    if let Some(What::Header(name, value)) = &fault {
        reply.headers.retain(|(k, _)| k != name);
        reply.headers.push((name.clone(), value.clone()));
    }
    let mut out = BufWriter::with_capacity(PIECE, channel);
    out.write_all(reply.head().as_bytes())?;
    if request.method == "HEAD" {
        reply.body = Body::Bytes(Vec::new());
    }
    let piece = match fault {
        Some(What::Slow(piece, _)) => piece.max(1),
        _ => PIECE,
    };
    let (mut sent, len, mut on_record) = (0, reply.len(), false);
    let status = reply.status;
    let ended = reply.send_body(&mut out, piece, |at, bytes| {
        let mut goes_on = Ok(());
        match &fault {
            Some(What::Corrupt) if at == 0 => bytes[0] ^= 1,
            Some(What::Slow(_, pause)) => thread::sleep(*pause),
            Some(What::DropAfter(n) | What::Stall(n, _)) if at + bytes.len() as u64 >= *n => {
                bytes.truncate((*n - at.min(*n)) as usize);
                goes_on = Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        sent = at + bytes.len() as u64;
        // On record before the client can have the last of it: a test that looks then finds it.
        if sent == len || goes_on.is_err() {
            state.note(&request, status, sent);
            on_record = true;
        }
        goes_on
    });
    if !on_record {
        // Without a body; or the client has gone away.
        state.note(&request, status, sent);
    }
    out.flush()?;
    if let Some(What::Stall(_, pause)) = fault {
        thread::sleep(pause);
    }
    Ok(ended.is_ok())
}
