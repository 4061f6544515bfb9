//! `http://` addresses through a proxy: it is asked for the whole address, and asks the server itself (RFC 9112, 3.2.2).
//!
//! `ureq` asks every proxy for a tunnel (`CONNECT`), which proxies commonly make to port 443 alone. Here a connection goes to
//! the proxy in the server's place, and the first line of every request names the server.

use ureq::{
    Agent,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport},
    },
};

/// An agent for `http://` alone that asks a proxy. The configuration names none.
pub(crate) fn agent(config: Config, proxy: &ureq::Proxy) -> Agent {
    let resolver = AtProxy { proxy: proxy.uri().clone(), resolver: DefaultResolver::default() };
    Agent::with_parts(config, ().chain(TcpConnector::default()).chain(Naming), resolver)
}

/// Whatever is asked for, the proxy's address is the answer: the server's name is the proxy's to know.
#[derive(Debug)]
struct AtProxy {
    proxy: Uri,
    resolver: DefaultResolver,
}

impl Resolver for AtProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.resolver.resolve(&self.proxy, config, timeout)
    }
}

#[derive(Debug)]
struct Naming;

impl<In: Transport> Connector<In> for Naming {
    type Out = Named<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let authority = details.uri.authority().map_or("", |a| a.as_str());
        // Without user info, which is the server's and stands in a header.
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Ok(chained.map(|inner| Named { inner, server: format!("http://{host}").into_bytes(), begins: true }))
    }
}

/// A connection to a proxy on which each request names its server.
#[derive(Debug)]
struct Named<T> {
    inner: T,
    /// `http://host:port`
    server: Vec<u8>,
    /// Whether what is sent next begins a request: the first thing, and what follows an answer.
    begins: bool,
}

impl<T: Transport> Transport for Named<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !std::mem::take(&mut self.begins) {
            return self.inner.transmit_output(amount, timeout);
        }
        let output = self.inner.buffers().output();
        // `GET /path`: the server's name goes before the path.
        let path = output[..amount].iter().position(|b| *b == b' ').map_or(0, |space| space + 1);
        let rest = output[path..amount].to_vec();
        let front = path + self.server.len();
        output[path..front].copy_from_slice(&self.server);
        self.inner.transmit_output(front, timeout)?;
        self.inner.buffers().output()[..rest.len()].copy_from_slice(&rest);
        self.inner.transmit_output(rest.len(), timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.begins = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
