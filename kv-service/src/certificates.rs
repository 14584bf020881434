//! The cluster's own certificate authority and the certificates that it signs. An identity is the
//! one DNS name in a certificate; `quic-link` reads it, nothing here decides who may do what.
//!
//! All keys are ECDSA P-256. Authority and certificates are valid for ten years from the day before
//! they were made (a clock may be behind): a certificate that ends earlier than anybody remembers
//! stops a cluster as surely as a lost disk, and whoever steals a key from a node has the data too.

use std::fmt;

use quic_link::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};

/// How long authority and certificates are valid.
pub const VALIDITY_DAYS: i64 = 3650;

/// How long before now they begin to be valid.
const CLOCK_TOLERANCE: Duration = Duration::DAY;

/// Certificates could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct CertificateError(#[from] rcgen::Error);

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct SignedPair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A certificate authority of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: SignedPair,
}

/// Says nothing of the key.
impl fmt::Debug for SignedPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedPair").finish_non_exhaustive()
    }
}

/// Says nothing of the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority with a new key.
    ///
    /// # Errors
    /// When the system has no randomness or the certificate cannot be encoded.
    pub fn new(cluster_name: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(cluster_name);
        let certificate = params.self_signed(&key)?.pem();
        let pair = SignedPair {
            certificate,
            key: key.serialize_pem(),
        };
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pair })
    }

    /// The authority that [`Authority::new`] made for a cluster of this name earlier. Whether
    /// certificate and key belong together shows in what it signs.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn from_pair(cluster_name: &str, pair: SignedPair) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(&pair.key)?;
        // Of all that is in the certificate, what it signs repeats the name and the key's id only;
        // both follow from what is known.
        let issuer = Issuer::new(authority_params(cluster_name), key);
        Ok(Self { issuer, pair })
    }

    /// Its own certificate and key.
    #[must_use]
    pub fn pair(&self) -> &SignedPair {
        &self.pair
    }

    /// Signs a certificate for an identity, with a new key. A node's serves both ends of a
    /// connection, that of a client or administrator only the dialling one.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn sign(&self, identity: &Identity) -> Result<SignedPair, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let name = identity.dns_name();
        // The common name is for human eyes, and may have 64 characters at most.
        let role = name.split('.').next().unwrap_or_default();
        let mut params = params(&format!("Flotilla {role}"));
        params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(identity.role, quic_link::Role::Node(_)) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(SignedPair {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

fn authority_params(cluster_name: &str) -> CertificateParams {
    let mut params = params(&format!("Flotilla authority of cluster {cluster_name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::now_utc() - CLOCK_TOLERANCE;
    params.not_after = params.not_before + Duration::days(VALIDITY_DAYS);
    params
}
