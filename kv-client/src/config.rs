//! What a client has to know before it can connect: the cluster, where its nodes are, and the files
//! that prove who the client is. Read from `client.toml`; unknown keys are errors.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Nodes that one client keeps connections to, configured and learned together.
pub const ENDPOINTS_MAX: usize = 32;

/// The longest that any time-out can be set to.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Everything that [`crate::KvClient::connect`] needs.
#[derive(Clone)]
pub struct ClientConfig {
    /// The cluster. A node of another cluster is not talked to.
    pub cluster: [u8; 16],
    /// The nodes that are known beforehand, 1 to [`ENDPOINTS_MAX`]. Further members are learned
    /// from them.
    pub endpoints: Vec<EndpointAddress>,
    /// The certificate of the cluster's authority, as PEM.
    pub ca: Vec<u8>,
    /// The client's certificate, as PEM.
    pub certificate: Vec<u8>,
    /// The client's private key, as PEM.
    pub key: Vec<u8>,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// One node and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointAddress {
    /// The node's id, which its certificate must carry.
    pub id: u64,
    /// `host:port`.
    pub address: String,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One call, with all its attempts. A write that takes longer ends as unknown or unavailable.
    pub request: Duration,
    /// One attempt to connect to a node.
    pub connect: Duration,
    /// The answer of a node to a question about its status.
    pub status: Duration,
    /// Silence of the leader after which the other nodes are asked who leads.
    pub silence: Duration,
}

impl Default for Timeouts {
    /// A request gets time for several elections; a connection attempt is given up early, because
    /// the next one reaches a node that was just started sooner than a slow repetition would.
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            connect: Duration::from_secs(1),
            status: Duration::from_secs(1),
            silence: Duration::from_millis(300),
        }
    }
}

impl fmt::Debug for ClientConfig {
    /// Leaves the key out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientConfig")
            .field("cluster", &hexadecimal(&self.cluster))
            .field("endpoints", &self.endpoints)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{} line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The cluster id is not 32 hexadecimal digits.
    #[error("cluster {0:?} is not 32 hexadecimal digits")]
    Cluster(String),
    /// There is no node to connect to.
    #[error("no endpoints: at least one node must be named")]
    NoEndpoints,
    /// There are more nodes than one client connects to.
    #[error("{count} endpoints are more than the limit of {ENDPOINTS_MAX}")]
    TooManyEndpoints {
        /// How many.
        count: usize,
    },
    /// Two endpoints have the same id.
    #[error("endpoint {id} is named twice")]
    DuplicateEndpoint {
        /// The id.
        id: u64,
    },
    /// An address is not `host:port`.
    #[error("endpoint {id} has address {address:?}, which is not host:port")]
    Address {
        /// The endpoint.
        id: u64,
        /// Its address.
        address: String,
    },
    /// A time-out is outside its limits.
    #[error("{name} of {millis} ms is outside its limit of 1 to {} ms", TIMEOUT_MAX.as_millis())]
    Timeout {
        /// Which.
        name: &'static str,
        /// Its value.
        millis: u128,
    },
    /// The certificates cannot be used.
    #[error("cannot use the client's certificate: {0}")]
    Credentials(String),
    /// The certificate is for another cluster.
    #[error("the certificate is for cluster {certificate}, not for {cluster}")]
    OtherCluster {
        /// The certificate's cluster.
        certificate: String,
        /// The configured cluster.
        cluster: String,
    },
    /// No socket could be opened.
    #[error("cannot open a socket: {0}")]
    Socket(String),
}

/// The file, before anything else is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    cluster: String,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    request_timeout_ms: Option<u64>,
    connect_timeout_ms: Option<u64>,
    endpoints: Vec<EndpointAddress>,
}

impl ClientConfig {
    /// Reads `client.toml` and the files that it names; relative paths are relative to it.
    ///
    /// # Errors
    /// When a file cannot be read, a key is unknown or missing, or a value makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let file: ConfigFile = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            ConfigError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                message: error.message().replace('\n', ", "),
            }
        })?;
        let cluster = cluster_id(&file.cluster).ok_or(ConfigError::Cluster(file.cluster))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut timeouts = Timeouts::default();
        if let Some(millis) = file.request_timeout_ms {
            timeouts.request = Duration::from_millis(millis);
        }
        if let Some(millis) = file.connect_timeout_ms {
            timeouts.connect = Duration::from_millis(millis);
        }
        let config = Self {
            cluster,
            endpoints: file.endpoints,
            ca: read(&folder.join(file.ca))?,
            certificate: read(&folder.join(file.certificate))?,
            key: read(&folder.join(file.key))?,
            timeouts,
        };
        config.check()?;
        Ok(config)
    }

    /// Checks everything that needs no other file and no network.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let count = self.endpoints.len();
        if count == 0 {
            return Err(ConfigError::NoEndpoints);
        }
        if count > ENDPOINTS_MAX {
            return Err(ConfigError::TooManyEndpoints { count });
        }
        let mut ids = BTreeSet::new();
        for EndpointAddress { id, address } in &self.endpoints {
            if !ids.insert(*id) {
                return Err(ConfigError::DuplicateEndpoint { id: *id });
            }
            let is_host_and_port = address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            });
            if !is_host_and_port {
                let (id, address) = (*id, address.clone());
                return Err(ConfigError::Address { id, address });
            }
        }
        let timeouts = [
            ("request_timeout_ms", self.timeouts.request),
            ("connect_timeout_ms", self.timeouts.connect),
            ("status timeout", self.timeouts.status),
            ("silence", self.timeouts.silence),
        ];
        for (name, timeout) in timeouts {
            if timeout < Duration::from_millis(1) || timeout > TIMEOUT_MAX {
                let millis = timeout.as_millis();
                return Err(ConfigError::Timeout { name, millis });
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A cluster id from its 32 hexadecimal digits.
fn cluster_id(text: &str) -> Option<[u8; 16]> {
    let well_formed = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| well_formed)?;
    Some(number.to_be_bytes())
}

/// A cluster id as 32 hexadecimal digits.
pub(crate) fn hexadecimal(cluster: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "000102030405060708090a0b0c0d0e0f"
ca = "ca.pem"
certificate = "client.pem"
key = "client.key"
request_timeout_ms = 2500

[[endpoints]]
id = 1
address = "127.0.0.1:7401"

[[endpoints]]
id = 2
address = "node-2.example:7402"
"#;

    fn load(text: &str) -> Result<ClientConfig, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["ca.pem", "client.pem", "client.key"] {
            std::fs::write(folder.path().join(name), name).expect("written");
        }
        let path = folder.path().join("client.toml");
        std::fs::write(&path, text).expect("written");
        ClientConfig::load(&path)
    }

    fn message(text: &str) -> String {
        let message = load(text).expect_err("refused").to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn a_good_file_is_read_with_the_files_it_names() {
        let config = load(GOOD).expect("good");
        assert_eq!(config.cluster[15], 15);
        assert_eq!(
            hexadecimal(&config.cluster),
            "000102030405060708090a0b0c0d0e0f"
        );
        assert_eq!(config.endpoints.len(), 2);
        assert_eq!(config.endpoints[1].address, "node-2.example:7402");
        assert_eq!(config.certificate, b"client.pem");
        assert_eq!(config.timeouts.request, Duration::from_millis(2500));
        assert!(!format!("{config:?}").contains("client.key"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_value() {
        let unknown = message(&GOOD.replace("request_timeout_ms", "request_timeout"));
        assert!(unknown.contains("client.toml line 6"), "{unknown}");
        assert!(
            unknown.contains("unknown field `request_timeout`"),
            "{unknown}"
        );
        let unknown = message(&GOOD.replace("address = \"127", "addr = \"127"));
        assert!(unknown.contains("unknown field `addr`"), "{unknown}");
        let missing = message(&GOOD.replace("key = \"client.key\"", ""));
        assert!(missing.contains("missing field `key`"), "{missing}");
        let cluster = message(&GOOD.replace("0f\"", "0x\""));
        assert!(
            cluster.contains("0x\" is not 32 hexadecimal digits"),
            "{cluster}"
        );
        let twice = message(&GOOD.replace("id = 2", "id = 1"));
        assert!(twice.contains("endpoint 1 is named twice"), "{twice}");
        let address = message(&GOOD.replace("127.0.0.1:7401", "127.0.0.1"));
        assert!(
            address.contains("\"127.0.0.1\", which is not host:port"),
            "{address}"
        );
        let timeout = message(&GOOD.replace("2500", "0"));
        assert!(timeout.contains("request_timeout_ms of 0 ms"), "{timeout}");
        let file = message(&GOOD.replace("\"ca.pem\"", "\"other.pem\""));
        assert!(
            file.contains("cannot read") && file.contains("other.pem"),
            "{file}"
        );
        let none = message(&format!(
            "endpoints = []\n{}",
            &GOOD[..GOOD.find("[[").unwrap()]
        ));
        assert!(none.contains("no endpoints"), "{none}");
    }
}
