//! Scans: keys in order, page by page, all as of one revision.

use bytes::Bytes;
use kv_api::limits::SCAN_KEYS_MAX;
use kv_api::{KeyValue, Query, QueryReply};

use crate::calls::Lane;
use crate::client::{KvClient, Reading};
use crate::error::ClientError;

/// Which keys to scan. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRange {
    /// The first key.
    pub from: Bytes,
    /// Where to stop, itself excluded; none is the end of the store.
    pub to: Option<Bytes>,
    /// How many keys are wanted in all; none is all of them.
    pub limit: Option<u64>,
    /// Leave the values out.
    pub keys_only: bool,
    /// As of this revision; none is the newest when the first page is read.
    pub revision: Option<u64>,
}

impl ScanRange {
    /// All keys that begin with these bytes.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from = prefix.into();
        // The first key behind all that begin with the prefix: its last byte that can be raised is.
        let raised = from.iter().rposition(|byte| *byte != u8::MAX);
        let to = raised.map(|last| {
            let mut to = from[..=last].to_vec();
            to[last] += 1;
            Bytes::from(to)
        });
        Self {
            from,
            to,
            ..Self::default()
        }
    }
}

/// A scan on its way. Every page is read as of the revision of the first.
#[derive(Debug)]
pub struct ScanStream {
    client: KvClient,
    /// Where the next page begins; none when the last was read.
    next: Option<Bytes>,
    to: Option<Bytes>,
    /// Keys that are still wanted.
    wanted: u64,
    keys_only: bool,
    revision: Option<u64>,
}

impl KvClient {
    /// Starts a scan. Nothing is read before the first page is asked for.
    #[must_use]
    pub fn scan(&self, range: ScanRange) -> ScanStream {
        ScanStream {
            client: self.clone(),
            next: Some(range.from),
            to: range.to,
            wanted: range.limit.unwrap_or(u64::MAX),
            keys_only: range.keys_only,
            revision: range.revision,
        }
    }
}

impl ScanStream {
    /// The revision that is read at, once the first page was read.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The next keys, in order, at least one; none at the end. After an error the same page can be
    /// asked for again.
    ///
    /// # Errors
    /// As [`KvClient::get_at`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<KeyValue>>, ClientError> {
        while self.wanted > 0
            && let Some(from) = self.next.clone()
        {
            let query = Query::Scan {
                from: from.clone(),
                to: self.to.clone(),
                revision: self.revision,
                limit: self.wanted.min(u64::from(SCAN_KEYS_MAX)) as u32,
                keys_only: self.keys_only,
            };
            let reply = self
                .client
                .query(&query, Reading::Newest, Lane::Bulk)
                .await?;
            let QueryReply::Scan(mut page) = reply else {
                return Err(ClientError::Unavailable(format!(
                    "unexpected answer {reply:?}"
                )));
            };
            // A page that does not move on would be read for ever.
            if let Some(next) = page.next.as_ref().filter(|next| **next <= from) {
                return Err(ClientError::Unavailable(format!(
                    "the page from {from:?} is followed by one from {next:?}"
                )));
            }
            page.items
                .truncate(usize::try_from(self.wanted).unwrap_or(usize::MAX));
            self.revision = Some(page.revision);
            self.next = page.next;
            self.wanted -= page.items.len() as u64;
            if !page.items.is_empty() {
                return Ok(Some(page.items));
            }
        }
        Ok(None)
    }

    /// Reads all that is left. Meant for ranges that are known to be small: memory is the limit.
    ///
    /// # Errors
    /// As [`ScanStream::next_page`].
    pub async fn collect(mut self) -> Result<Vec<KeyValue>, ClientError> {
        let mut items = Vec::new();
        while let Some(page) = self.next_page().await? {
            items.extend(page);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_without_it() {
        let range = |prefix: &'static [u8]| ScanRange::prefix(prefix).to;
        assert_eq!(range(b"ab"), Some(Bytes::from_static(b"ac")));
        assert_eq!(range(b"a\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(range(b"\xff\xff"), None);
        assert_eq!(range(b""), None);
    }
}
