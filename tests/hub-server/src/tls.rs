//! Encrypted connections, with certificates of our own (`certificates/make.sh`).

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
};

/// The certificate of the authority that signed the server's.
pub const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certificates/authority.pem");

/// The certificate of a server that signed itself.
pub const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certificates/own.pem");

/// The certificate of a server that signed itself, and says that it is no authority.
pub const ALONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certificates/alone.pem");

/// What an encrypted server shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certificate {
    /// One that is good for 127.0.0.1 and no other name.
    Good,
    /// One that has run out.
    Expired,
    /// One that nobody signed but itself, as an authority.
    Own,
    /// One that nobody signed but itself.
    Alone,
}

/// What a server of TLS needs to know.
///
/// # Panics
/// Where the files of this folder are no certificates.
pub fn config(shown: Certificate) -> Arc<ServerConfig> {
    let chain: &[u8] = match shown {
        Certificate::Good => include_bytes!("../certificates/server.pem"),
        Certificate::Expired => include_bytes!("../certificates/expired.pem"),
        Certificate::Own => include_bytes!("../certificates/own.pem"),
        Certificate::Alone => include_bytes!("../certificates/alone.pem"),
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../certificates/server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.expect("a certificate and its key"))
}

/// A connection, encrypted or not.
pub(crate) enum Channel {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Channel {
    pub fn new(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self::Encrypted(Box::new(StreamOwned::new(connection, stream))))
    }

    pub fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Both),
            Self::Encrypted(stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.sock.shutdown(Shutdown::Both)
            }
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Encrypted(stream) => stream.read(buf),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buf),
            Self::Encrypted(stream) => stream.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Encrypted(stream) => stream.flush(),
        }
    }
}
