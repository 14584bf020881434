//! The bytes of an image of the state machine, part by part, and the way back. Format 1; the table
//! of its bytes is in `docs/data-model.md`.
//!
//! Machines in the same state give the same bytes. What is read back is not trusted: every number
//! is checked, and memory grows only with the bytes that are there, never with what they announce.

#[cfg(test)]
pub(crate) mod tests;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kv_api::{CommandReply, DecodeError, SessionId};

use crate::sessions::{SessionLimits, SessionRecord, SessionRecordError, SessionRecords, Sessions};
use crate::store::live::Live;
use crate::store::retained::{
    Fate, Retained, RetainedError, RetainedVersions, StoreCounts, StoreRestorer,
};
use crate::store::{KvStore, MemoryLive, Retention};

/// The version of the format: the first byte of every part.
const FORMAT: u8 = 1;

/// The highest revision that an image may have: the store goes on counting from there, and never
/// gets to the end.
pub(crate) const REVISION_MAX: u64 = u64::MAX >> 1;

/// The first byte of every part of the other kind of image: the files of a database.
pub(crate) const CHECKPOINT: u8 = 2;

/// A part takes no further record once it has this many bytes. Small enough to be sent and checked
/// in a few milliseconds, large enough that a part costs little by itself.
const PART_BYTES: usize = 256 << 10;

/// What a part holds: its second byte.
const HEAD: u8 = 1;
const SESSIONS: u8 = 2;
const KEYS: u8 = 3;

/// Bytes of the head behind the first two.
const HEAD_NUMBERS: usize = 12;

/// The first byte of a record in a part of sessions.
const SESSION: u8 = 1;
const REPLY: u8 = 2;

/// The first byte of a record in a part of keys.
const LIVE: u8 = 1;
const REPLACED: u8 = 2;
const DELETED: u8 = 3;

/// Bytes that are no image, or not one that this program and its limits can take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// Written by another version.
    #[error("format {found}, this program reads format {FORMAT}")]
    Format {
        /// What was found.
        found: u8,
    },
    /// The files of a database, where none can be opened.
    #[error(
        "it is a checkpoint of RocksDB (format {CHECKPOINT}), of a node with state rocksdb: only a \
         node of a program that was built with `--features rocksdb` can take it"
    )]
    Checkpoint,
    /// A part of a kind that is unknown, or not where it belongs.
    #[error("a part of kind {kind} behind one of kind {after}")]
    Order {
        /// Its kind.
        kind: u8,
        /// The kind of the part before; 0 at the beginning.
        after: u8,
    },
    /// A record of an unknown kind.
    #[error("a record of kind {0}")]
    Record(u8),
    /// Fewer bytes than a record needs.
    #[error("cut short inside a record, {missing} bytes are missing")]
    Cut {
        /// How many more would be needed at least.
        missing: usize,
    },
    /// Bytes behind the head.
    #[error("{0} bytes behind the head")]
    Trailing(usize),
    /// Made with other limits. What is kept follows from them, so a machine that goes on from here
    /// with its own would come to differ from the others.
    #[error("made with {name} of {found}, this program has {ours}")]
    OtherLimit {
        /// Which.
        name: &'static str,
        /// The image's.
        found: u64,
        /// Our own.
        ours: u64,
    },
    /// No store has written that often.
    #[error("revision {0} is above the limit of {REVISION_MAX}")]
    Revision(u64),
    /// A kept reply that is none.
    #[error("a kept reply cannot be read: {0}")]
    Reply(#[from] DecodeError),
    /// Sessions.
    #[error(transparent)]
    Sessions(#[from] SessionRecordError),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] RetainedError),
    /// There is not as much as was announced.
    #[error("{what}: {found} instead of {announced}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many came.
        found: u64,
        /// How many were announced.
        announced: u64,
    },
    /// A session was used by a log entry that is not part of the snapshot.
    #[error("a session was used by entry {used}, but the snapshot ends at {last}")]
    Future {
        /// The entry.
        used: u64,
        /// The last entry of the snapshot.
        last: u64,
    },
    /// There is nothing.
    #[error("there is no head")]
    Empty,
}

/// Limits that decide what is kept, by name.
fn named_limits(retention: Retention, sessions: SessionLimits) -> [(&'static str, u64); 5] {
    [
        ("history revisions_max", retention.revisions_max as u64),
        ("history bytes_max", retention.bytes_max as u64),
        ("sessions_max", sessions.sessions_max as u64),
        ("session window_max", sessions.window_max),
        ("session replies_max", sessions.replies_max as u64),
    ]
}

/// An image as a sequence of parts.
#[derive(Debug)]
pub(crate) struct ImageParts<L = MemoryLive> {
    part_bytes: usize,
    has_begun: bool,
    sessions: SessionRecords,
    keys: RetainedVersions<L>,
}

impl<L: Live> ImageParts<L> {
    /// An image of these. Takes no time; the parts are made when they are asked for.
    pub(crate) fn new(store: KvStore<L>, sessions: Sessions) -> Self {
        Self {
            part_bytes: PART_BYTES,
            has_begun: false,
            sessions: SessionRecords::new(sessions),
            keys: RetainedVersions::new(store),
        }
    }

    /// The next part; none after the last.
    pub(crate) fn try_next_part(&mut self) -> Result<Option<Bytes>, L::Error> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Ok(Some(head(self.keys.store(), self.sessions.sessions())));
        }
        let mut sessions = Part::new(SESSIONS);
        while sessions.has_room(self.part_bytes)
            && let Some(record) = self.sessions.next()
        {
            put_session(&mut sessions.bytes, record);
        }
        if let Some(part) = sessions.finish() {
            return Ok(Some(part));
        }
        let mut keys = Part::new(KEYS);
        while keys.has_room(self.part_bytes)
            && let Some(record) = self.keys.try_next()?
        {
            put_version(&mut keys.bytes, record);
        }
        Ok(keys.finish())
    }
}

impl ImageParts {
    /// The next part of an image in memory.
    pub(crate) fn next_part(&mut self) -> Option<Bytes> {
        let Ok(part) = self.try_next_part();
        part
    }
}

fn head<L: Live>(store: &KvStore<L>, sessions: &Sessions) -> Bytes {
    let mut bytes = BytesMut::with_capacity(2 + HEAD_NUMBERS * 8);
    bytes.put_slice(&[FORMAT, HEAD]);
    let counts = store.counts();
    for number in [
        counts.revision,
        counts.oldest,
        counts.live,
        counts.superseded,
        counts.superseded_bytes,
        sessions.len() as u64,
        sessions.replies() as u64,
    ] {
        bytes.put_u64_le(number);
    }
    for (_, limit) in named_limits(store.retention(), sessions.limits()) {
        bytes.put_u64_le(limit);
    }
    bytes.freeze()
}

/// A part that is being filled.
struct Part {
    bytes: BytesMut,
}

impl Part {
    fn new(kind: u8) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&[FORMAT, kind]);
        Self { bytes }
    }

    /// Whether another record belongs into it; at least one does.
    fn has_room(&self, part_bytes: usize) -> bool {
        self.bytes.len() <= 2 || self.bytes.len() < part_bytes
    }

    /// The part, where anything is in it.
    fn finish(self) -> Option<Bytes> {
        (self.bytes.len() > 2).then(|| self.bytes.freeze())
    }
}

fn put_session(bytes: &mut BytesMut, record: SessionRecord) {
    match record {
        SessionRecord::Session {
            id,
            last_used,
            unanswered_from,
        } => {
            bytes.put_u8(SESSION);
            bytes.put_u64_le(id.0);
            bytes.put_u64_le(last_used);
            bytes.put_u64_le(unanswered_from);
        }
        SessionRecord::Reply(sequence, reply) => {
            let reply = kv_api::encode(&reply);
            bytes.put_u8(REPLY);
            bytes.put_u64_le(sequence);
            put_length(bytes, reply.len());
            bytes.put_slice(&reply);
        }
    }
}

fn put_version(bytes: &mut BytesMut, record: Retained) {
    let (kind, end) = match record.fate {
        Fate::Live => (LIVE, None),
        Fate::Replaced(end) => (REPLACED, Some(end)),
        Fate::Deleted(end) => (DELETED, Some(end)),
    };
    bytes.put_u8(kind);
    bytes.put_u64_le(record.create_revision);
    bytes.put_u64_le(record.mod_revision);
    bytes.put_u64_le(record.version);
    if let Some(end) = end {
        bytes.put_u64_le(end);
    }
    put_length(bytes, record.key.len());
    put_length(bytes, record.value.len());
    bytes.put_slice(&record.key);
    bytes.put_slice(&record.value);
}

/// Keys, values and replies are far below what four bytes can say.
fn put_length(bytes: &mut BytesMut, length: usize) {
    bytes.put_u32_le(u32::try_from(length).expect("bounded by the limits of the store"));
}

/// Takes the parts of an image, and gives what it is an image of.
#[derive(Debug)]
pub(crate) struct ImageRestorer<L = MemoryLive> {
    retention: Retention,
    limits: SessionLimits,
    /// Where the keys are to be kept, until the head has come.
    live: Option<L>,
    state: Option<Restoring<L>>,
    /// The kind of the part before; 0 at the beginning.
    after: u8,
}

/// What has been read behind the head.
#[derive(Debug)]
struct Restoring<L> {
    sessions: Sessions,
    sessions_announced: u64,
    replies_announced: u64,
    keys: StoreRestorer<L>,
}

impl ImageRestorer {
    /// For a machine with these limits, in memory.
    pub(crate) fn new(retention: Retention, limits: SessionLimits) -> Self {
        Self::over(MemoryLive::default(), retention, limits)
    }
}

impl<L: Live> ImageRestorer<L> {
    /// For a machine with these limits, whose keys are kept in `live`, which is empty.
    pub(crate) fn over(live: L, retention: Retention, limits: SessionLimits) -> Self {
        Self {
            retention,
            limits,
            live: Some(live),
            state: None,
            after: 0,
        }
    }

    /// Where the keys are kept that have come, if any have.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn live_mut(&mut self) -> Option<&mut L> {
        self.state.as_mut().map(|state| state.keys.live_mut())
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// When it is not the next part of an image that this machine can take. All of it is then of no
    /// use.
    pub(crate) fn push(&mut self, part: &[u8]) -> Result<(), ImageError> {
        let mut rest = part;
        let format = number::<1>(&mut rest)?[0];
        match format {
            FORMAT => {}
            CHECKPOINT => return Err(ImageError::Checkpoint),
            found => return Err(ImageError::Format { found }),
        }
        let kind = number::<1>(&mut rest)?[0];
        let after = std::mem::replace(&mut self.after, kind);
        match (&mut self.state, kind) {
            (None, HEAD) => {
                let live = self.live.take().ok_or(ImageError::Empty)?;
                self.state = Some(read_head(&mut rest, self.retention, self.limits, live)?);
                if rest.is_empty() {
                    return Ok(());
                }
                Err(ImageError::Trailing(rest.len()))
            }
            (Some(state), SESSIONS) if after <= SESSIONS => {
                while !rest.is_empty() {
                    state.sessions.push(read_session(&mut rest)?)?;
                }
                Ok(())
            }
            (Some(state), KEYS) => {
                while !rest.is_empty() {
                    state.keys.push(read_version(&mut rest)?)?;
                }
                Ok(())
            }
            _ => Err(ImageError::Order { kind, after }),
        }
    }

    /// The store and the sessions, when all parts are there; `last` is the index of the last log
    /// entry that is part of them.
    ///
    /// # Errors
    /// When there is less than was announced.
    pub(crate) fn finish(self, last: u64) -> Result<(KvStore<L>, Sessions), ImageError> {
        let state = self.state.ok_or(ImageError::Empty)?;
        let sessions = state.sessions;
        for (what, found, announced) in [
            ("sessions", sessions.len(), state.sessions_announced),
            ("kept replies", sessions.replies(), state.replies_announced),
        ] {
            let found = found as u64;
            if found != announced {
                return Err(ImageError::Count {
                    what,
                    found,
                    announced,
                });
            }
        }
        let used = sessions.last_used();
        if used > last {
            return Err(ImageError::Future { used, last });
        }
        Ok((state.keys.finish()?, sessions))
    }
}

fn read_head<L: Live>(
    rest: &mut &[u8],
    retention: Retention,
    limits: SessionLimits,
    live: L,
) -> Result<Restoring<L>, ImageError> {
    let counts = StoreCounts {
        revision: integer(rest)?,
        oldest: integer(rest)?,
        live: integer(rest)?,
        superseded: integer(rest)?,
        superseded_bytes: integer(rest)?,
    };
    if counts.revision > REVISION_MAX {
        return Err(ImageError::Revision(counts.revision));
    }
    let (sessions_announced, replies_announced) = (integer(rest)?, integer(rest)?);
    for (name, ours) in named_limits(retention, limits) {
        let found = integer(rest)?;
        if found != ours {
            return Err(ImageError::OtherLimit { name, found, ours });
        }
    }
    Ok(Restoring {
        sessions: Sessions::new(limits),
        sessions_announced,
        replies_announced,
        keys: StoreRestorer::new(retention, counts, live)?,
    })
}

fn read_session(rest: &mut &[u8]) -> Result<SessionRecord, ImageError> {
    match number::<1>(rest)?[0] {
        SESSION => Ok(SessionRecord::Session {
            id: SessionId(integer(rest)?),
            last_used: integer(rest)?,
            unanswered_from: integer(rest)?,
        }),
        REPLY => {
            let sequence = integer(rest)?;
            let length = length(rest)?;
            let reply: CommandReply = kv_api::decode(taken(rest, length)?)?;
            Ok(SessionRecord::Reply(sequence, reply))
        }
        other => Err(ImageError::Record(other)),
    }
}

fn read_version(rest: &mut &[u8]) -> Result<Retained, ImageError> {
    let kind = number::<1>(rest)?[0];
    let (create_revision, mod_revision) = (integer(rest)?, integer(rest)?);
    let version = integer(rest)?;
    let fate = match kind {
        LIVE => Fate::Live,
        REPLACED => Fate::Replaced(integer(rest)?),
        DELETED => Fate::Deleted(integer(rest)?),
        other => return Err(ImageError::Record(other)),
    };
    let (key, value) = (length(rest)?, length(rest)?);
    // Copied: what is kept must not keep the whole part.
    let key = Bytes::copy_from_slice(taken(rest, key)?);
    let value = Bytes::copy_from_slice(taken(rest, value)?);
    Ok(Retained {
        key,
        create_revision,
        mod_revision,
        version,
        value,
        fate,
    })
}

fn number<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ImageError> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(taken(rest, N)?);
    Ok(bytes)
}

fn integer(rest: &mut &[u8]) -> Result<u64, ImageError> {
    Ok(u64::from_le_bytes(number(rest)?))
}

fn length(rest: &mut &[u8]) -> Result<usize, ImageError> {
    Ok(u32::from_le_bytes(number(rest)?) as usize)
}

fn taken<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ImageError> {
    let (bytes, behind) = rest.split_at_checked(length).ok_or(ImageError::Cut {
        missing: length.saturating_sub(rest.remaining()),
    })?;
    *rest = behind;
    Ok(bytes)
}
