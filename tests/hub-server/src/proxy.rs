//! A proxy as companies have them: it fetches `http://` addresses itself, makes tunnels where it permits them (`CONNECT`),
//! may ask who is there, and keeps a record.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What a proxy permits, and what it was asked.
#[derive(Debug, Default)]
struct State {
    asked: Mutex<Vec<String>>,
    /// What `Proxy-Authorization` has to say.
    expected: Mutex<Option<String>>,
    /// Statuses of its next answers, in place of what there would be.
    refusals: Mutex<Vec<u16>>,
    stop: AtomicBool,
}

/// A running proxy, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<State>,
    port: u16,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts on a free port.
    ///
    /// # Panics
    /// Where this machine has no port to give.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a port").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                let state = Arc::clone(&shared);
                thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Self { state, port }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its URL with a user and a password, which are needed from now on: `user:password`, as a URL has it and as they are.
    pub fn url_with(&self, encoded: &str, plain: &str) -> String {
        *lock(&self.state.expected) = Some(format!("Basic {}", base64(plain.as_bytes())));
        format!("http://{encoded}@127.0.0.1:{}", self.port)
    }

    /// Answers the next request with this status.
    pub fn refuse(&self, status: u16) {
        lock(&self.state.refusals).push(status);
    }

    /// What it was asked since it was last looked at: methods and targets.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state.asked))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Answers what comes on one connection.
fn serve(client: &TcpStream, state: &State) -> io::Result<()> {
    let mut from = BufReader::new(client);
    let mut to = client;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            head[1..]
                .iter()
                .filter_map(|l| l.split_once(':'))
                .find_map(|(k, v)| k.eq_ignore_ascii_case(name).then(|| v.trim().to_owned()))
        };
        let mut parts = head[0].split(' ').map(str::to_owned);
        let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let length: u64 = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        lock(&state.asked).push(format!("{method} {target}"));
        let expected = lock(&state.expected).clone();
        let refusal = lock(&state.refusals).pop();
        let refusal = refusal
            .or_else(|| (expected.is_some() && header("proxy-authorization") != expected).then_some(407));
        if let Some(status) = refusal {
            write!(to, "HTTP/1.1 {status} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            return client.shutdown(Shutdown::Both);
        }
        if method == "CONNECT" {
            let server = connect(&target)?;
            to.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            return tunnel(from, client, &server);
        }
        // Only whole addresses say whom to ask.
        let Some((host, path)) = target.strip_prefix("http://").and_then(|t| t.split_once('/')) else {
            to.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let mut server = connect(host)?;
        let mut request = format!("{method} /{path} HTTP/1.1\r\nconnection: close\r\n");
        for line in head[1..].iter().filter(|l| !l.to_ascii_lowercase().starts_with("proxy-")) {
            request += line;
            request += "\r\n";
        }
        server.write_all((request + "\r\n").as_bytes())?;
        io::copy(&mut (&mut from).take(length), &mut server)?;
        // The server closes; the client's connection stays.
        io::copy(&mut server, &mut to)?;
    }
}

/// A server by its name, of which the proxy knows more than others do: `hub.test` is this machine.
fn connect(host: &str) -> io::Result<TcpStream> {
    TcpStream::connect(host.replace("hub.test", "127.0.0.1"))
}

/// Passes bytes both ways until one side closes.
fn tunnel(mut from: BufReader<&TcpStream>, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut server, mut client) = (server, client);
            drop(io::copy(&mut server, &mut client));
            drop(client.shutdown(Shutdown::Both));
        });
        let mut to = server;
        drop(io::copy(&mut from, &mut to));
        server.shutdown(Shutdown::Both)
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
            out.push(if i <= three.len() { digit } else { '=' });
        }
    }
    out
}
