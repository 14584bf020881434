//! A certificate authority for tests. Real clusters get theirs when they are formatted.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::credentials::Credentials;
use crate::identity::{Identity, Role};

/// PEM texts as they would stand in files.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The authority.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// An authority that signs whatever a test needs, valid or not.
pub struct Authority {
    cluster: [u8; 16],
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Credentials for each role, all signed by one new authority of `cluster`.
///
/// # Panics
/// When the system has no randomness.
#[must_use]
pub fn certificates(cluster: [u8; 16], roles: &[Role]) -> Vec<Credentials> {
    let authority = Authority::new(cluster);
    roles
        .iter()
        .map(|role| authority.credentials(*role))
        .collect()
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn new(cluster: [u8; 16]) -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).expect("authority").pem();
        Self {
            cluster,
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Valid credentials for `role`.
    ///
    /// # Panics
    /// When they cannot be made or are refused.
    #[must_use]
    pub fn credentials(&self, role: Role) -> Credentials {
        let pem = self.pem(role);
        Credentials::from_pem(pem.ca.as_bytes(), pem.cert.as_bytes(), pem.key.as_bytes())
            .expect("certificates of this authority are valid")
    }

    /// The same as PEM texts.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn pem(&self, role: Role) -> Pem {
        let identity = Identity {
            cluster: self.cluster,
            role,
        };
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        self.sign(&[&identity.dns_name()], now - day, now + day)
    }

    /// A certificate for any names and any time.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn sign(&self, names: &[&str], from: SystemTime, until: SystemTime) -> Pem {
        let key = KeyPair::generate().expect("keys can be made");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names are DNS names");
        params.not_before = from.into();
        params.not_after = until.into();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let cert = params.signed_by(&key, &self.issuer).expect("certificate");
        Pem {
            ca: self.pem.clone(),
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Credentials {
    /// The same certificate with another authority to check peers against: what a forger would use.
    ///
    /// # Panics
    /// When `ca` is no PEM text of a certificate.
    #[must_use]
    pub fn trusting(self, ca: &str) -> Self {
        self.with_authority(ca.as_bytes())
            .expect("authority of a test")
    }
}
