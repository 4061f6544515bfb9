//! Whom encrypted connections trust, and what a certificate that is not trusted means for a user.
//!
//! Authorities that the settings name are trusted beside the built-in ones: networks that inspect what passes have an
//! authority of their own, and do not inspect everything.

use crate::{cache::read_small, client::Failure, url::Url};
use rustls::{AlertDescription, CertificateError, RootCertStore, pki_types::CertificateDer};
use std::{io, path::Path};
use tensormill_model::{Error, Result};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

/// Largest file of certificates that is read: all that the world has are 300 KB.
const FILE: u64 = 16 << 20;

/// What to do about a file of certificates.
const FILE_HINT: &str = "SSL_CERT_FILE (else REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE) names a PEM file with certificates of authorities to trust; \
     unset it, or name one that is there";

/// Who is trusted: the built-in authorities, and those of a PEM file where there is one.
pub(crate) fn config(file: Option<&Path>) -> Result<TlsConfig> {
    let Some(path) = file else { return Ok(TlsConfig::default()) };
    let mut roots = named_in(path).map_err(|e| e.file(path.display()).hint(FILE_HINT))?;
    roots.extend(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|c| Certificate::from_der(c)));
    Ok(TlsConfig::builder().root_certs(RootCerts::from(roots)).build())
}

/// The certificates of a PEM file.
fn named_in(path: &Path) -> Result<Vec<Certificate<'static>>> {
    if path.is_dir() {
        return Err(Error::usage("this is a folder; certificates are read from a file"));
    }
    let pem = read_small(path, FILE).map_err(|e| Error::io("read the certificates", e))?;
    let mut roots = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(c)) => roots.push(c),
            Ok(_) => {}
            Err(e) => return Err(Error::malformed(format!("these are no certificates: {e}"))),
        }
    }
    if roots.is_empty() {
        return Err(Error::malformed("this file holds no certificate"));
    }
    // Of bundles, some may be too old to be understood, and nobody misses them.
    let mut store = RootCertStore::empty();
    let (known, _) = store.add_parsable_certificates(roots.iter().map(|c| CertificateDer::from(c.der())));
    if known == 0 {
        return Err(Error::malformed("this file holds no certificate that can be read"));
    }
    Ok(roots)
}

/// What an encrypted connection that did not come about means; `None` where it is no matter of encryption.
pub(crate) fn refused(error: &io::Error, url: &Url) -> Option<Failure> {
    use CertificateError as C;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let certificate = |what: String| format!("{what} ({error})");
    let (message, hint) = match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => (
            certificate("the certificate is of an authority that is not trusted here".to_owned()),
            "a network that inspects what passes, or a mirror of one's own, has an authority of its own: get its certificate \
             from whoever runs it, and name the PEM file in SSL_CERT_FILE",
        ),
        rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => (
            certificate("the certificate is not valid at this time".to_owned()),
            "check this machine's clock; if it is right, the server needs a new certificate",
        ),
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => (
            certificate(format!("the certificate is not that of {}", url.host())),
            "check the name in HF_ENDPOINT: the certificate says which names it is for",
        ),
        rustls::Error::InvalidCertificate(_) => (
            certificate("the certificate cannot be accepted".to_owned()),
            "whoever runs the server has to mend it; CaUsedAsEndEntity is an authority's own certificate, where one that it \
             signed is needed",
        ),
        rustls::Error::InvalidMessage(_) => (
            format!("what answers does not speak TLS ({error})"),
            "is its address one that begins with http://?",
        ),
        rustls::Error::AlertReceived(alert) if *alert != AlertDescription::InternalError => (
            format!("the server refuses the connection ({error})"),
            "does this network ask for a certificate of yours?",
        ),
        _ => return None,
    };
    let e = Error::io("reach the server", io::Error::new(io::ErrorKind::PermissionDenied, message));
    Some(Failure::last(e.file(url).hint(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_added_to_the_built_in_ones() {
        let of = |file: Option<&Path>| config(file).unwrap().root_certs().clone();
        assert!(matches!(of(None), RootCerts::WebPki));
        let RootCerts::Specific(roots) = of(Some(Path::new(tensormill_hub_server::AUTHORITY))) else {
            panic!("a file was named");
        };
        assert_eq!(roots.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
    }

    #[test]
    fn files_without_certificates_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let said = |what: &str| {
            let e = config(Some(&path)).unwrap_err();
            assert!(e.message().contains(what) && e.hint_text().unwrap().contains("SSL_CERT_FILE"), "{e}");
            assert!(e.file_name().is_some_and(|f| f.ends_with("bundle.pem")), "{e}");
        };
        said("read the certificates");
        for (text, what) in [
            ("", "no certificate"),
            ("nothing of the kind\n", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "no certificates"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "that can be read"),
        ] {
            std::fs::write(&path, text).unwrap();
            said(what);
        }
        std::fs::File::create(&path).unwrap().set_len(FILE + 1).unwrap();
        said("more than");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        said("folder");
    }
}
