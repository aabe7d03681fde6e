//! Who is who in the cluster: the certificates by which managers and switches know each other.
//!
//! A certificate of the cluster's authority names its holder once for each kind of process it may be, as a DNS name
//! `<id>.<kind>.rostrum.internal`. Standard verifiers can so check it, beside the addresses that it is reached by.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use crate::records::Kind;

/// Under what identities stand; no such domain exists outside.
const SUFFIX: &str = "rostrum.internal";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Key and certificate do not fit, or are of an unknown kind.
    #[error("certificate and key are not usable together: {0}")]
    Unusable(#[from] rustls::Error),
}

impl TlsError {
    /// The file that is to blame; `None`: it is the certificate with its key.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Content { path, .. } => Some(path),
            Self::Unusable(_) => None,
        }
    }
}

/// The cluster's authority, and one member's certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("identities", &self.identities())
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the PEM files, and sees that they fit: the key is the certificate's, which is in its time and signed by
    /// the authority.
    ///
    /// # Errors
    /// [`TlsError`] says which file is to blame.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::File {
                path: path.to_owned(),
                source,
            })
        };
        let content = |path: &Path, what: String| TlsError::Content {
            path: path.to_owned(),
            what,
        };
        let certificates = |path: &Path, pem: &[u8]| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let all = all.map_err(|e| content(path, e.to_string()))?;
            match all.is_empty() {
                true => Err(content(path, "no certificate in this file".into())),
                false => Ok(all),
            }
        };
        let (ca_pem, certificate_pem, key_pem) = (read(ca)?, read(certificate)?, read(key)?);
        let tls = Self {
            roots: certificates(ca, &ca_pem)?,
            chain: certificates(certificate, &certificate_pem)?,
            ca: ca_pem,
            certificate: certificate_pem,
            key: key_pem,
        };
        PrivateKeyDer::from_pem_slice(&tls.key)
            .map_err(|_| content(key, "no private key in this file".into()))?;
        tls.roots().map_err(|e| content(ca, e.to_string()))?;
        tls.server_config()?;
        tls.check_chain()
            .map_err(|e| content(certificate, format!("{e}, by {}", ca.display())))?;
        Ok(tls)
    }

    fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.roots {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    /// Its own certificate, as others will see it.
    fn check_chain(&self) -> Result<(), String> {
        let told = |e: webpki::Error| format!("not a certificate that others accept ({e})");
        let (leaf, rest) = self.chain.split_first().ok_or("no certificate")?;
        let leaf = EndEntityCert::try_from(leaf).map_err(told)?;
        let roots = self.roots().map_err(|e| e.to_string())?;
        for usage in [
            webpki::KeyUsage::client_auth(),
            webpki::KeyUsage::server_auth(),
        ] {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &roots.roots,
                rest,
                UnixTime::now(),
                usage,
                None,
                None,
            )
            .map_err(told)?;
        }
        Ok(())
    }

    /// For a server that serves only those who have a certificate of the same authority; ALPN `h2`.
    ///
    /// # Errors
    /// [`TlsError::Unusable`]: key and certificate do not fit.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider())
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(self.chain.clone(), key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// PEM of the authority, the certificate and its key, for a client.
    #[must_use]
    pub fn pem(&self) -> (&[u8], &[u8], &[u8]) {
        (&self.ca, &self.certificate, &self.key)
    }

    /// Whether the own certificate is one of this process.
    #[must_use]
    pub fn is_for(&self, kind: Kind, id: &str) -> bool {
        self.chain.first().is_some_and(|own| is_of(own, kind, id))
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn identities(&self) -> Vec<(Kind, String)> {
        self.chain.first().map(identities).unwrap_or_default()
    }
}

fn provider() -> Arc<CryptoProvider> {
    // Named everywhere instead of installed: a process-wide default would be global state of a library.
    Arc::new(aws_lc_rs::default_provider())
}

/// The DNS name by which a process is known in certificates.
#[must_use]
pub fn dns_name(kind: Kind, id: &str) -> String {
    format!("{id}.{kind}.{SUFFIX}")
}

/// Whether an id can stand in a certificate: lower-case letters, digits, `-`, `_` and dots between them, up to 63
/// octets. Names in certificates do not tell upper from lower case.
#[must_use]
pub fn is_certifiable(id: &str) -> bool {
    let known = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    id.len() <= 63
        && id.bytes().all(known)
        && DnsName::try_from(dns_name(Kind::MeetingManager, id)).is_ok()
}

/// Whether a certificate, which a verifier has accepted, is that of this process.
#[must_use]
pub fn is_of(certificate: &CertificateDer<'_>, kind: Kind, id: &str) -> bool {
    is_certifiable(id)
        && EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
            ServerName::try_from(dns_name(kind, id))
                .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        })
}

/// Whom a certificate names.
#[must_use]
pub fn identities(certificate: &CertificateDer<'_>) -> Vec<(Kind, String)> {
    let Ok(read) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let identity = |name: &str| {
        let inner = name.strip_suffix(SUFFIX)?.strip_suffix('.')?;
        Kind::ALL.into_iter().find_map(|kind| {
            let id = inner.strip_suffix(kind.as_str())?.strip_suffix('.')?;
            is_of(certificate, kind, id).then(|| (kind, id.to_owned()))
        })
    };
    read.valid_dns_names().filter_map(identity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_mean_one_id_are_certifiable() {
        for good in ["a", "switch-1", "manager_2", "a.example.org", "10"] {
            assert!(is_certifiable(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "A", "a b", "a/b", "*", ".a", "a.", "a..b", "ä", &long] {
            assert!(!is_certifiable(bad), "{bad:?}");
        }
    }
}
