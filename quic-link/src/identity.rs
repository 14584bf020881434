//! Who a certificate speaks for: a cluster and a role in it, written as one DNS name.

use std::fmt;

/// What the holder of a certificate is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The member with this id; never 0.
    Node(u64),
    /// Reads and writes data.
    Client,
    /// Changes the cluster.
    Admin,
}

/// A role in a cluster. In a certificate it is the one DNS name that ends in `.flotilla`:
/// `node-3.<32 hex digits>.flotilla`, `client.<hex>.flotilla` or `admin.<hex>.flotilla`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster's random name.
    pub cluster: [u8; 16],
    /// The role in it.
    pub role: Role,
}

/// The last label of every name of ours.
const SUFFIX: &str = "flotilla";

impl Identity {
    /// The name that stands in the certificate.
    #[must_use]
    pub fn dns_name(&self) -> String {
        self.to_string()
    }

    /// Reads a name back. `None` for every other name, also for another spelling of one of ours:
    /// an identity has exactly one name.
    #[must_use]
    pub fn from_dns_name(name: &str) -> Option<Self> {
        let mut labels = name.split('.');
        let (role, cluster) = (labels.next()?, labels.next()?);
        if cluster.len() != 32 || !cluster.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let role = match role {
            "client" => Role::Client,
            "admin" => Role::Admin,
            node => Role::Node(
                node.strip_prefix("node-")?
                    .parse()
                    .ok()
                    .filter(|id| *id != 0)?,
            ),
        };
        let identity = Self {
            cluster: u128::from_str_radix(cluster, 16).ok()?.to_be_bytes(),
            role,
        };
        (identity.dns_name() == name).then_some(identity)
    }

    /// Whether a name claims to be one of ours, well-formed or not.
    pub(crate) fn is_claimed_by(name: &str) -> bool {
        name.rsplit('.')
            .next()
            .is_some_and(|last| last.eq_ignore_ascii_case(SUFFIX))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Node(id) => write!(f, "node-{id}.")?,
            Role::Client => f.write_str("client.")?,
            Role::Admin => f.write_str("admin.")?,
        }
        self.cluster
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ".{SUFFIX}")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: [u8; 16] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ];

    #[test]
    fn every_role_has_a_name_that_reads_back() {
        for (role, name) in [
            (
                Role::Node(3),
                "node-3.00010203040506070809aabbccddeeff.flotilla",
            ),
            (
                Role::Client,
                "client.00010203040506070809aabbccddeeff.flotilla",
            ),
            (
                Role::Admin,
                "admin.00010203040506070809aabbccddeeff.flotilla",
            ),
        ] {
            let identity = Identity {
                cluster: CLUSTER,
                role,
            };
            assert_eq!(identity.dns_name(), name);
            assert_eq!(Identity::from_dns_name(name), Some(identity));
        }
    }

    #[test]
    fn other_names_and_other_spellings_are_no_identity() {
        for name in [
            "",
            "localhost",
            "node-3.flotilla",
            "node-0.00010203040506070809aabbccddeeff.flotilla",
            "node-03.00010203040506070809aabbccddeeff.flotilla",
            "node-+3.00010203040506070809aabbccddeeff.flotilla",
            "node-3.00010203040506070809AABBCCDDEEFF.flotilla",
            "node-3.00010203040506070809aabbccddeef.flotilla",
            "node-3.+0010203040506070809aabbccddeeff.flotilla",
            "node-3.00010203040506070809aabbccddeeff.flotilla.",
            "x.node-3.00010203040506070809aabbccddeeff.flotilla",
            "root.00010203040506070809aabbccddeeff.flotilla",
            "node-18446744073709551616.00010203040506070809aabbccddeeff.flotilla",
        ] {
            assert_eq!(Identity::from_dns_name(name), None, "{name}");
        }
    }
}
