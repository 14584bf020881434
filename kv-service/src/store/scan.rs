//! Pages of keys in order, at the newest or at an older revision.

use std::ops::Bound;

use bytes::Bytes;
use kv_api::limits::{SCAN_KEYS_MAX, SCAN_PAGE_BYTES_MAX};
use kv_api::{KeyValue, ScanPage};

use super::history::History;
use super::live::{Listed, Live};
use super::version::Version;

/// Keys that one page looks at, whether or not they were there at its revision. A page of an old
/// revision may therefore be short, or even empty, and still name a next one: a query is bounded
/// work, wherever it looks.
pub const SCAN_EXAMINED_MAX: usize = 20_000;

/// What to scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// The first key.
    pub from: Bytes,
    /// Where to stop; none is the end of the store.
    pub to: Option<Bytes>,
    /// Keys wanted; 0 is as many as a page may hold.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

impl ScanRange {
    fn holds(&self, key: &[u8]) -> bool {
        self.to.as_ref().is_none_or(|to| key < &to[..])
    }

    fn items_max(&self) -> usize {
        let limit = match self.limit {
            0 => SCAN_KEYS_MAX,
            limit => limit.min(SCAN_KEYS_MAX),
        };
        limit as usize
    }
}

/// A page at a revision that the caller has checked to be readable.
pub(super) fn page<L: Live>(
    live: &L,
    history: &History,
    range: &ScanRange,
    revision: u64,
    newest_revision: u64,
) -> Result<ScanPage, L::Error> {
    let mut page = Page::new(range, revision);
    let mut listed = live.list(Bound::Included(&range.from));
    let mut newest = listed.next().transpose()?;
    // What is deleted by now may have been there then, but is not there now.
    let deleted = (revision < newest_revision).then(|| history.deleted_from(&range.from));
    let mut deleted = deleted.into_iter().flatten().peekable();
    for examined in 0.. {
        // A key is in one of the two only.
        let is_live = match (&newest, deleted.peek()) {
            (Some(live), Some((deleted, _))) => live.key < **deleted,
            (live, _) => live.is_some(),
        };
        let key = match (&newest, deleted.peek()) {
            (Some(live), _) if is_live => live.key.clone(),
            (_, Some((deleted, _))) => (*deleted).clone(),
            _ => break,
        };
        if !range.holds(&key) {
            break;
        }
        if examined == SCAN_EXAMINED_MAX {
            page.page.next = Some(key);
            break;
        }
        let goes_on = if is_live {
            let found = std::mem::replace(&mut newest, listed.next().transpose()?);
            let found = found.expect("just seen");
            page.take_live(live, history, found)?
        } else {
            let (key, last) = deleted.next().expect("just seen");
            page.take_old(key, history.at(*last, revision))
        };
        if !goes_on {
            break;
        }
    }
    Ok(page.page)
}

/// A page that is being filled.
struct Page {
    page: ScanPage,
    items_max: usize,
    keys_only: bool,
    bytes: usize,
}

impl Page {
    fn new(range: &ScanRange, revision: u64) -> Self {
        Self {
            page: ScanPage {
                items: Vec::new(),
                next: None,
                revision,
            },
            items_max: range.items_max(),
            keys_only: range.keys_only,
            bytes: 0,
        }
    }

    /// Takes a key that is there now, as it was at the revision of the page. Answers false where it
    /// has no room; the next page then begins there.
    fn take_live<L: Live>(
        &mut self,
        live: &L,
        history: &History,
        found: Listed,
    ) -> Result<bool, L::Error> {
        let revision = self.page.revision;
        let key = found.key.clone();
        if found.version.mod_revision > revision {
            let old = history.at(found.version.previous, revision);
            return Ok(self.take_old(&key, old));
        }
        if !self.has_room(&key, found.value_bytes()) {
            return Ok(false);
        }
        // A value is read only where it is given out.
        let version = if self.keys_only {
            found.version
        } else {
            live.whole(found)?
        };
        self.push(&key, &version);
        Ok(true)
    }

    /// The same for what a key held before, where it held anything.
    fn take_old(&mut self, key: &Bytes, version: Option<&Version>) -> bool {
        let Some(version) = version else { return true };
        let has_room = self.has_room(key, version.value.len());
        if has_room {
            self.push(key, version);
        }
        has_room
    }

    /// Whether one more fits; else it is where the next page begins. The first one always fits, so
    /// that every page gets on.
    fn has_room(&mut self, key: &Bytes, value_bytes: usize) -> bool {
        let value_bytes = if self.keys_only { 0 } else { value_bytes };
        let bytes = self.bytes + key.len() + value_bytes;
        let full = self.page.items.len() == self.items_max || bytes > SCAN_PAGE_BYTES_MAX;
        let has_room = !full || self.page.items.is_empty();
        if !has_room {
            self.page.next = Some(key.clone());
        }
        has_room
    }

    fn push(&mut self, key: &Bytes, version: &Version) {
        let item: KeyValue = version.to_key_value(key, self.keys_only);
        self.bytes += item.key.len() + item.value.len();
        self.page.items.push(item);
    }
}
