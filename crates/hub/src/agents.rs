//! Connections to servers: direct, or through the proxy that an address has; trusting whom the settings trust.
//!
//! It must not know what is asked.

use crate::{forward, settings::Settings, tls, url::Url};
use base64::{Engine, engine::general_purpose::STANDARD};
use tensormill_model::{Error, Result};
use ureq::{Agent, Proxy, ProxyProtocol, config::Config, http::HeaderValue, tls::TlsConfig};

/// Agents, each with connections that are kept and used again.
pub(crate) struct Agents {
    direct: Agent,
    /// For `http://` through a proxy, with what the proxy wants to hear on every request.
    http: Option<(Agent, Option<HeaderValue>)>,
    /// For `https://` through a proxy: a tunnel, which is asked for once.
    https: Option<Agent>,
}

impl Agents {
    /// Agents as the settings ask for.
    ///
    /// # Errors
    /// `Usage` for a proxy that is no URL, `Unsupported` for one of another kind; `Io` or `Malformed` for certificates that
    /// cannot be read. Nothing of this matters where nothing is sent.
    pub fn new(settings: &Settings) -> Result<Self> {
        if settings.offline || settings.mirror().is_some() {
            let direct = Agent::new_with_config(config(settings, TlsConfig::default(), None));
            return Ok(Self { direct, http: None, https: None });
        }
        let tls = tls::config(settings.certificates.as_deref())?;
        let config = |proxy| config(settings, tls.clone(), proxy);
        let http = settings.proxies.http.as_deref().map(proxy).transpose()?;
        let https = settings.proxies.https.as_deref().map(proxy).transpose()?;
        Ok(Self {
            direct: Agent::new_with_config(config(None)),
            http: http.map(|proxy| match proxy.protocol() {
                ProxyProtocol::Http => (forward::agent(config(None), &proxy), credentials(&proxy)),
                _ => (Agent::new_with_config(config(Some(proxy))), None),
            }),
            https: https.map(|proxy| Agent::new_with_config(config(Some(proxy)))),
        })
    }

    /// Who asks for a URL, and what a proxy wants to hear with the request.
    pub fn of(&self, settings: &Settings, url: &Url) -> (&Agent, Option<&HeaderValue>) {
        let direct = (&self.direct, None);
        match (settings.proxies.of(url), url.is_https()) {
            (None, _) => direct,
            (Some(_), true) => self.https.as_ref().map_or(direct, |agent| (agent, None)),
            (Some(_), false) => self.http.as_ref().map_or(direct, |(agent, words)| (agent, words.as_ref())),
        }
    }
}

fn config(settings: &Settings, tls: TlsConfig, proxy: Option<Proxy>) -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(tls)
        .proxy(proxy)
        .user_agent(concat!("tensormill/", env!("CARGO_PKG_VERSION")))
        // What is measured, hashed and resumed is the file, not a compressed form of it.
        .accept_encoding("identity")
        .timeout_resolve(Some(settings.answer_timeout))
        .timeout_connect(Some(settings.answer_timeout))
        .timeout_recv_response(Some(settings.answer_timeout))
        .timeout_per_read(Some(settings.stall_timeout))
        .timeout_per_write(Some(settings.stall_timeout))
        .max_idle_connections_per_host(16)
        .max_idle_connections(32)
        .build()
}

/// A proxy. Its text may hold a password: it is not repeated.
fn proxy(url: &str) -> Result<Proxy> {
    let hint =
        "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are like http://host:port or http://user:password@host:port";
    let proxy =
        Proxy::new(url).map_err(|_| Error::usage("the proxy is no URL that can be used").hint(hint))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err(Error::unsupported("SOCKS proxies are not supported").hint(hint)),
    }
}

/// User and password, as every request carries them.
fn credentials(proxy: &Proxy) -> Option<HeaderValue> {
    let user = proxy.username()?;
    let both = STANDARD.encode(format!("{user}:{}", proxy.password().unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {both}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
