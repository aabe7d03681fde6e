//! Certificates and TLS configurations: a self-signed certificate made at the first start and kept, or PEM files.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

/// Years a generated certificate is good for; it is made anew when it lacks a name.
const YEARS: i32 = 10;
/// Line in front of a generated certificate that says what it was made for.
const NAMES_LINE: &str = "names: ";
/// Names a generated certificate may have for the sake of earlier networks. Fewer make a machine that moves between
/// more of them show a new certificate when it returns to one; each lengthens the handshake.
const NAMES_KEPT: usize = 64;

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// A directory to keep a self-signed certificate in (`certificate.pem`, `key.pem`), made when absent.
    Directory(PathBuf),
    /// PEM files of the operator's.
    Pem {
        /// The certificate and its chain, leaf first.
        chain: PathBuf,
        /// The private key: PKCS #8, PKCS #1 or SEC 1.
        key: PathBuf,
    },
}

/// Why there is no certificate or no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{path}: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{0}: no certificate in this file")]
    Empty(PathBuf),
    /// Key and certificate do not fit, or are of an unknown kind.
    #[error("certificate or key not usable: {0}")]
    Unusable(#[from] rustls::Error),
    /// A name no certificate can carry.
    #[error("cannot make a certificate for these names: {0}")]
    Generate(#[from] rcgen::Error),
    /// No trusted root certificates on this system.
    #[error("no trusted certificates found: {0}")]
    NoRoots(String),
}

/// A certificate with its key, ready to be served.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// It was made (or made anew) by this call: clients will see a new certificate.
    pub generated: bool,
}

impl Identity {
    /// A server configuration (TLS 1.2 and 1.3) with ALPN `http/1.1`, for HTTPS and for SIP.
    ///
    /// # Errors
    /// [`TlsError::Unusable`]: key and certificate do not fit.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whom outgoing TLS connections trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The roots of the operating system.
    #[default]
    System,
    /// Only the certificates of this PEM file.
    File(PathBuf),
    /// Anyone: no protection against a man in the middle. For tests and closed networks.
    Unverified,
}

/// Loads the certificate, or makes one for `names` (host names and IP addresses; `localhost`, `127.0.0.1` and
/// `::1` are added). A generated one is kept while it has all of them; else it is made anew for these and the ones it
/// had, so that a machine that moves to and fro does not show others a new one each time. It is also made anew before
/// it runs out.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn load_or_generate(
    source: &CertificateSource,
    names: &[String],
) -> Result<Identity, TlsError> {
    match source {
        CertificateSource::Pem { chain, key } => load(chain, key, false),
        CertificateSource::Directory(directory) => {
            let mut names = all_names(names);
            let (chain, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
            let kept = if key.exists() {
                kept_names(&chain)
            } else {
                Vec::new()
            };
            let fresh = names.iter().all(|name| kept.contains(name));
            if !fresh {
                let earlier = kept.into_iter().filter(|name| !names.contains(name));
                let room = NAMES_KEPT.saturating_sub(names.len());
                let earlier: Vec<String> = earlier.take(room).collect();
                names.extend(earlier);
                names.sort();
                generate(directory, &chain, &key, &names)?;
            }
            load(&chain, &key, !fresh)
        }
    }
}

/// How outgoing connections verify. Client certificates are not used.
///
/// # Errors
/// [`TlsError`]: the file cannot be read, or the system has no roots.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(TlsError::NoRoots(errors.join("; ")));
            }
        }
        Trust::File(path) => {
            for certificate in read_chain(path)? {
                roots.add(certificate)?;
            }
        }
        Trust::Unverified => {}
    }
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = if *trust == Trust::Unverified {
        let verifier = Arc::new(Unverified(provider()));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| TlsError::NoRoots(e.to_string()))?;
        builder.with_webpki_verifier(verifier)
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

fn provider() -> Arc<CryptoProvider> {
    // Named everywhere instead of installed: a process-wide default would be global state of a library.
    Arc::new(aws_lc_rs::default_provider())
}

/// Sorted, without doubles, with the local ones.
fn all_names(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    all.extend(names.iter().map(|name| {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name.parse::<IpAddr>()
            .map_or_else(|_| name.to_ascii_lowercase(), |ip| ip.to_string())
    }));
    all.retain(|name| {
        name.parse::<IpAddr>()
            .map_or(!name.is_empty(), |ip| !ip.is_unspecified())
    });
    all.sort();
    all.dedup();
    all
}

fn current_year() -> i32 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    // Mean Gregorian year; a day off at New Year does not matter here.
    1970 + i32::try_from(seconds / 31_556_952).unwrap_or(0)
}

/// The text in front of a certificate: what it is for, and its last whole year.
fn preamble(names: &[String], until: i32) -> String {
    format!("{NAMES_LINE}{}\nuntil: {until}\n", names.join(" "))
}

/// What the kept certificate was made for; nothing where there is none that is good for another year.
fn kept_names(chain: &Path) -> Vec<String> {
    let text = fs::read_to_string(chain).unwrap_or_default();
    let mut lines = text.lines();
    let names = lines.next().and_then(|l| l.strip_prefix(NAMES_LINE));
    let until = lines
        .next()
        .and_then(|l| l.strip_prefix("until: ")?.parse::<i32>().ok());
    match names {
        Some(names) if until.is_some_and(|until| until > current_year() + 1) => {
            names.split_whitespace().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn generate(directory: &Path, chain: &Path, key: &Path, names: &[String]) -> Result<(), TlsError> {
    let this_year = current_year();
    let until = this_year + YEARS;
    let pair = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Rostrum (self-signed)");
    params.not_before = rcgen::date_time_ymd(this_year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&pair)?;
    fs::create_dir_all(directory).map_err(|source| file_error(directory, source))?;
    // The key first: a certificate without its key would be taken for good at the next start.
    write_file(key, pair.serialize_pem().as_bytes(), 0o600)?;
    write_file(
        chain,
        (preamble(names, until) + &certificate.pem()).as_bytes(),
        0o644,
    )
}

/// Whole or not at all, readable to `mode` from its first byte.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let temporary = path.with_extension("new");
    let write = || {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        source,
    }
}

fn load(chain: &Path, key: &Path, generated: bool) -> Result<Identity, TlsError> {
    let certificates = read_chain(chain)?;
    let metadata = fs::metadata(key).map_err(|source| file_error(key, source))?;
    if metadata.permissions().mode() & 0o004 != 0 {
        tracing::warn!(path = %key.display(), "every user of this machine can read the private key; chmod 600 it");
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
        path: key.to_owned(),
        source,
    })?;
    Ok(Identity {
        chain: certificates,
        key,
        generated,
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let text = fs::read(path).map_err(|source| file_error(path, source))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(pem)?;
    if chain.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(chain)
}

/// Accepts every certificate, but still demands that the peer has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
