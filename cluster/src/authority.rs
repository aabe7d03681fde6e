//! The cluster's own certificate authority: a folder with its certificate and key, and those of the members.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::identity::{dns_name, is_certifiable};
use crate::records::Kind;

/// Years that the authority is good for, and each certificate.
const YEARS: i32 = 10;

/// Name of the authority's files.
const CA: &str = "ca";

/// Why something was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file is there already; nothing is ever written over.
    #[error("{} is there already, and nothing is written over", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No name for a member.
    #[error(
        "{0:?} cannot be a member's name: write lower-case letters, digits, \"-\", \"_\" and dots, as in the role's id"
    )]
    Name(String),
    /// No address of a member.
    #[error("{0:?} is neither an IP address nor a host name")]
    Address(String),
    /// The key or the certificate is damaged, or another's.
    #[error("{}: {source}", .path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
}

/// Who is to have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Name of the files, and the id it is known by in the cluster.
    pub name: String,
    /// What it may be.
    pub kinds: Vec<Kind>,
    /// IP addresses and host names that it is reached by.
    pub addresses: Vec<String>,
}

/// The authority.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one in a folder, which is made where there is none: `ca.pem` and `ca.key`.
    ///
    /// # Errors
    /// [`AuthorityError`]; where there is one already, it stays as it is.
    pub fn create(folder: &Path) -> Result<Self, AuthorityError> {
        std::fs::create_dir_all(folder).map_err(|source| AuthorityError::File {
            path: folder.to_owned(),
            source,
        })?;
        let paths = Paths::new(folder, CA);
        paths.must_be_free()?;
        let failed = |source| AuthorityError::Certificate {
            path: paths.certificate.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = dated(Vec::new()).map_err(failed)?;
        // Two clusters' authorities must not be taken for each other.
        let name = format!("Rostrum cluster {:08x}", rand::random::<u32>());
        params.distinguished_name = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        paths.write(&certificate.pem(), &key.serialize_pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Opens the one of a folder.
    ///
    /// # Errors
    /// [`AuthorityError`]: there is none, or it is damaged.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let paths = Paths::new(folder, CA);
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| AuthorityError::File {
                path: path.to_owned(),
                source,
            })
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Certificate { path, source }
        };
        let key = KeyPair::from_pem(&read(&paths.key)?).map_err(failed(&paths.key))?;
        let issuer = Issuer::from_ca_cert_pem(&read(&paths.certificate)?, key)
            .map_err(failed(&paths.certificate))?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer,
        })
    }

    /// Looks whether certificates for these can be made, before any is.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn check(folder: &Path, holders: &[Holder]) -> Result<(), AuthorityError> {
        for (at, holder) in holders.iter().enumerate() {
            params(holder)?;
            let paths = Paths::new(folder, &holder.name);
            if holders[..at].iter().any(|other| other.name == holder.name) {
                return Err(AuthorityError::Exists(paths.certificate));
            }
            paths.must_be_free()?;
        }
        Ok(())
    }

    /// Makes `<name>.pem` and `<name>.key`, for clients and servers alike.
    ///
    /// # Errors
    /// [`AuthorityError`]: a name or an address that cannot be, or files that are there already.
    pub fn issue(&self, holder: &Holder) -> Result<(), AuthorityError> {
        let paths = Paths::new(&self.folder, &holder.name);
        let params = params(holder)?;
        paths.must_be_free()?;
        let failed = |source| AuthorityError::Certificate {
            path: paths.certificate.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        paths.write(&certificate.pem(), &key.serialize_pem())
    }
}

fn params(holder: &Holder) -> Result<CertificateParams, AuthorityError> {
    if !is_certifiable(&holder.name) || holder.name == CA {
        return Err(AuthorityError::Name(holder.name.clone()));
    }
    let mut names: Vec<String> = Vec::new();
    names.extend(
        holder
            .kinds
            .iter()
            .map(|kind| dns_name(*kind, &holder.name)),
    );
    for address in &holder.addresses {
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let is_name = || is_certifiable(&bare.to_ascii_lowercase());
        if bare.parse::<IpAddr>().is_err() && !is_name() {
            return Err(AuthorityError::Address(address.clone()));
        }
        names.push(bare.to_ascii_lowercase());
    }
    let mut params = dated(names).map_err(|_| AuthorityError::Name(holder.name.clone()))?;
    params.distinguished_name = named(&holder.name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    debug_assert!(
        params
            .subject_alt_names
            .iter()
            .all(|n| matches!(n, SanType::DnsName(_) | SanType::IpAddress(_)))
    );
    Ok(params)
}

fn dated(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    const YEAR: u64 = 31_556_952;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let years = now.map_or(0, |since| since.as_secs() / YEAR);
    let this_year = 1970 + i32::try_from(years).unwrap_or(0);
    let mut params = CertificateParams::new(names)?;
    // clocks of machines differ
    params.not_before = rcgen::date_time_ymd(this_year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(this_year + YEARS, 1, 1);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

struct Paths {
    certificate: PathBuf,
    key: PathBuf,
}

impl Paths {
    fn new(folder: &Path, name: &str) -> Self {
        Self {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }

    fn must_be_free(&self) -> Result<(), AuthorityError> {
        for path in [&self.certificate, &self.key] {
            if path.exists() {
                return Err(AuthorityError::Exists(path.clone()));
            }
        }
        Ok(())
    }

    fn write(&self, certificate: &str, key: &str) -> Result<(), AuthorityError> {
        write_new(&self.key, 0o600, key)?;
        write_new(&self.certificate, 0o644, certificate)
    }
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), AuthorityError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorityError::Exists(path.to_owned()),
        _ => AuthorityError::File {
            path: path.to_owned(),
            source,
        },
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}
