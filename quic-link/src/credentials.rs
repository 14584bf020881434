//! A certificate, its key and the authority that signed it: read from PEM, and checked before use,
//! so that a wrong file is reported at the start and by name, not as a failed handshake later.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::error::CredentialsError;
use crate::identity::{Identity, Role};

/// Who we are, and whom we believe. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    identity: Identity,
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Credentials {
    /// Reads the cluster's authority, our certificate (with intermediates behind it, if any) and
    /// its private key.
    ///
    /// # Errors
    /// When a file is not what it should be, when the certificate was not signed by the
    /// authority, is not valid now or names not exactly one identity, and when the key is of
    /// another certificate.
    pub fn from_pem(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let authority =
            CertificateDer::from_pem_slice(ca).map_err(|error| pem("authority", &error))?;
        let chain = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem("certificate", &error))?;
        let Some(own) = chain.first() else {
            return Err(pem("certificate", &PemError::NoItemsFound));
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| pem("private key", &error))?;
        let identity = certificate_identity(own)?;
        check_signature(&authority, &chain, identity.role)?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(_) => CredentialsError::KeyMismatch,
                other => CredentialsError::Pem {
                    file: "private key",
                    why: other.to_string(),
                },
            }
        })?;
        Ok(Self {
            identity,
            authority,
            chain,
            key: Arc::new(key),
        })
    }

    /// Unchecked, for tests of what the peer refuses.
    #[cfg(feature = "test-support")]
    pub(crate) fn with_authority(mut self, ca: &[u8]) -> Result<Self, CredentialsError> {
        self.authority =
            CertificateDer::from_pem_slice(ca).map_err(|error| pem("authority", &error))?;
        Ok(self)
    }

    /// Whom the certificate names.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// Shows the identity; never the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The one cryptographic library that we use, chosen here and not by a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The one identity that a certificate names. Other DNS names (say, of a host) are ignored.
pub(crate) fn certificate_identity(
    certificate: &CertificateDer<'_>,
) -> Result<Identity, CredentialsError> {
    let parsed = EndEntityCert::try_from(certificate)
        .map_err(|error| CredentialsError::Unusable(error.to_string()))?;
    let names: Vec<&str> = parsed
        .valid_dns_names()
        .filter(|name| Identity::is_claimed_by(name))
        .collect();
    match names[..] {
        [] => Err(CredentialsError::NoIdentity),
        [name] => Identity::from_dns_name(name)
            .ok_or_else(|| CredentialsError::AmbiguousIdentity(name.to_owned())),
        _ => Err(CredentialsError::AmbiguousIdentity(names.join(", "))),
    }
}

fn check_signature(
    authority: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    role: Role,
) -> Result<(), CredentialsError> {
    let (own, intermediates) = chain.split_first().ok_or(CredentialsError::NoIdentity)?;
    let own = EndEntityCert::try_from(own)
        .map_err(|error| CredentialsError::Unusable(error.to_string()))?;
    let anchor =
        webpki::anchor_from_trusted_cert(authority).map_err(|error| CredentialsError::Pem {
            file: "authority",
            why: error.to_string(),
        })?;
    let verify = |usage: KeyUsage| {
        own.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            std::slice::from_ref(&anchor),
            intermediates,
            UnixTime::now(),
            usage,
            None,
            None,
        )
        .map(|_path| ())
        .map_err(verification_error)
    };
    verify(KeyUsage::client_auth())?;
    // Only nodes are dialled.
    if matches!(role, Role::Node(_)) {
        verify(KeyUsage::server_auth())?;
    }
    Ok(())
}

fn verification_error(error: webpki::Error) -> CredentialsError {
    match error {
        webpki::Error::CertExpired { not_after, .. } => CredentialsError::Expired {
            not_after: utc_text(not_after),
        },
        webpki::Error::CertNotValidYet { not_before, .. } => CredentialsError::NotYetValid {
            not_before: utc_text(not_before),
        },
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CredentialsError::NotSignedByAuthority
        }
        other => CredentialsError::Unusable(other.to_string()),
    }
}

fn pem(file: &'static str, error: &PemError) -> CredentialsError {
    let why = match error {
        PemError::NoItemsFound => "no PEM block of the right kind in it".to_owned(),
        // These would show bytes of the file.
        PemError::MissingSectionEnd { .. } => "a PEM block in it has no end".to_owned(),
        PemError::IllegalSectionStart { .. } => "a PEM block in it has no beginning".to_owned(),
        other => other.to_string(),
    };
    CredentialsError::Pem { file, why }
}

/// `2026-03-01 12:00:00 UTC`. The days are turned into a date by counting from 1 March of year 0,
/// so that the leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn utc_text(time: UnixTime) -> String {
    let seconds = time.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
        ] {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            assert_eq!(utc_text(time), text);
        }
    }
}
