//! A snapshot as it comes from the leader, part by part. It has a connection of its own: whoever
//! takes the parts slowly holds up nobody else, and no more than a few parts are ever in memory.

use std::time::Duration;

use bytes::Bytes;
use kv_api::limits::FRAME_BYTES_MAX;
use kv_api::{Outcome, Request, RequestBody, SnapshotHead};
use quic_link::{CLOSE_NORMAL, FrameReader, FrameWriter, Link};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::client::KvClient;
use crate::connection::{KIND_REQUEST, response};
use crate::error::ClientError;

/// Between two attempts to find a node that sends.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The id of the one request on the connection.
const REQUEST_ID: u64 = 1;

/// A snapshot on its way. Dropping it ends the transfer.
#[derive(Debug)]
pub struct SnapshotDownload {
    connection: Connection,
    head: SnapshotHead,
    parts: u64,
    bytes: u64,
    is_complete: bool,
    silence_max: Duration,
}

/// A snapshot that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// What it stands for.
    pub head: SnapshotHead,
    /// How many parts it has.
    pub parts: u64,
    /// Bytes of all parts together.
    pub bytes: u64,
}

/// The stream, and what keeps it open.
#[derive(Debug)]
struct Connection {
    link: Link,
    _writer: FrameWriter,
    reader: FrameReader,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link
            .close(CLOSE_NORMAL, "the snapshot is not wanted any more");
    }
}

/// Why an attempt did not begin.
enum Failure {
    /// Another attempt may do better.
    Passing(String),
    /// It will not.
    Final(ClientError),
}

impl KvClient {
    /// Begins to fetch the whole state as it is now, linearizably. The parts are for
    /// `raft_storage`'s snapshot files; see `docs/data-model.md` for what is in them.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without the certificate of an administrator;
    /// [`ClientError::Unavailable`] when no node began to send before the deadline.
    pub async fn save_snapshot(&self) -> Result<SnapshotDownload, ClientError> {
        let deadline = self.deadline();
        let mut failures = 0;
        loop {
            // Waits for a leader; also tells whether we may ask at all.
            self.members_by(deadline).await?;
            let why = match timeout_at(deadline, self.begin_download(failures)).await {
                Ok(Ok(download)) => return Ok(download),
                Ok(Err(Failure::Final(error))) => return Err(error),
                Ok(Err(Failure::Passing(why))) => why,
                Err(_) => self.shared().situation(),
            };
            failures += 1;
            if Instant::now() + RETRY_INTERVAL >= deadline {
                let why = format!("no snapshot was begun before the deadline; last: {why}");
                return Err(ClientError::Unavailable(why));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn begin_download(&self, failures: u32) -> Result<SnapshotDownload, Failure> {
        let shared = self.shared();
        let leader = shared
            .with_router(|router| router.leader_endpoint())
            .ok_or_else(|| Failure::Passing(shared.situation()))?;
        let link = self.dialer().dial(shared, leader, failures).await;
        let mut connection = Connection::open(link.map_err(Failure::Passing)?)
            .await
            .map_err(Failure::Passing)?;
        match connection.next().await.map_err(Failure::Passing)? {
            Outcome::SnapshotBegin(head) => Ok(SnapshotDownload {
                connection,
                head,
                parts: 0,
                bytes: 0,
                is_complete: false,
                silence_max: self.timeouts().request,
            }),
            Outcome::Refused(why) => Err(Failure::Final(ClientError::Refused(why))),
            Outcome::Limit(limit) => Err(Failure::Final(limit.into())),
            Outcome::Unavailable(why) | Outcome::Unknown(why) => Err(Failure::Passing(why)),
            Outcome::NotLeader(_) => Err(Failure::Passing(
                "the node that was asked does not lead".to_owned(),
            )),
            other => Err(Failure::Passing(format!("unexpected answer {other:?}"))),
        }
    }
}

impl Connection {
    async fn open(link: Link) -> Result<Self, String> {
        let (mut writer, reader) = link.open_bi().await.map_err(|error| error.to_string())?;
        let request = Request {
            id: REQUEST_ID,
            body: RequestBody::SaveSnapshot,
        };
        writer
            .queue(KIND_REQUEST, [kv_api::encode(&request).into()])
            .map_err(|error| error.to_string())?;
        writer.flush().await.map_err(|error| error.to_string())?;
        Ok(Self {
            link,
            _writer: writer,
            reader,
        })
    }

    /// What the node says next about the request.
    async fn next(&mut self) -> Result<Outcome, String> {
        loop {
            let frame = match self.reader.read(FRAME_BYTES_MAX).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err("the node ended the stream".to_owned()),
                Err(error) => return Err(error.to_string()),
            };
            let response = response(&frame)?;
            match (response.id, response.outcome) {
                (0, Outcome::Notice(_)) => {}
                (REQUEST_ID, outcome) => return Ok(outcome),
                (id, _) => return Err(format!("answer to request {id}, never made")),
            }
        }
    }
}

impl SnapshotDownload {
    /// What the snapshot stands for.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Parts that have arrived.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// Bytes of the parts that have arrived.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next part; none after the last. Only then is the snapshot whole: what came before an
    /// error is of no use.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when the node or the connection to it is gone; the snapshot has
    /// to be fetched anew.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.is_complete {
            return Ok(None);
        }
        let silence_max = self.silence_max;
        let outcome = match timeout(silence_max, self.connection.next()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => return Err(self.broken(&why)),
            Err(_) => {
                let why = format!("nothing came for {} ms", silence_max.as_millis());
                return Err(self.broken(&why));
            }
        };
        match outcome {
            Outcome::SnapshotPart(part) => {
                self.parts += 1;
                self.bytes += part.len() as u64;
                Ok(Some(part))
            }
            Outcome::SnapshotEnd { parts, bytes } if (parts, bytes) == self.counts() => {
                self.is_complete = true;
                Ok(None)
            }
            Outcome::SnapshotEnd { parts, bytes } => {
                Err(self.broken(&format!("{parts} parts of {bytes} bytes were sent")))
            }
            Outcome::Unavailable(why) => Err(self.broken(&why)),
            other => Err(self.broken(&format!("unexpected answer {other:?}"))),
        }
    }

    /// All of it in one line, once the last part has arrived.
    #[must_use]
    pub fn summary(&self) -> Option<SnapshotSummary> {
        self.is_complete.then(|| SnapshotSummary {
            head: self.head.clone(),
            parts: self.parts,
            bytes: self.bytes,
        })
    }

    fn counts(&self) -> (u64, u64) {
        (self.parts, self.bytes)
    }

    fn broken(&self, why: &str) -> ClientError {
        let (parts, bytes) = self.counts();
        ClientError::Unavailable(format!(
            "the snapshot broke off after {parts} parts of {bytes} bytes: {why}"
        ))
    }
}
