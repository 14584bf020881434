//! Pages of keys in order, at the newest or at an older revision.

use bytes::Bytes;
use imbl::OrdMap;
use kv_api::limits::{SCAN_KEYS_MAX, SCAN_PAGE_BYTES_MAX};
use kv_api::{KeyValue, ScanPage};

use super::history::History;
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
pub(super) fn page(
    live: &OrdMap<Bytes, Version>,
    history: &History,
    range: &ScanRange,
    revision: u64,
) -> ScanPage {
    let mut page = Page::new(range, revision);
    let mut live = live.range(range.from.clone()..).peekable();
    let mut old = history.key_from(&range.from);
    for examined in 0.. {
        // The smallest key that is, or was, in the store.
        let key = match (live.peek(), old) {
            (Some((live_key, _)), Some(old_key)) => (*live_key).min(old_key),
            (Some((live_key, _)), None) => live_key,
            (None, Some(old_key)) => old_key,
            (None, None) => break,
        };
        if !range.holds(key) {
            break;
        }
        if examined == SCAN_EXAMINED_MAX {
            page.page.next = Some(key.clone());
            break;
        }
        let newest = live.next_if(|(live_key, _)| *live_key == key);
        let version = match newest {
            Some((_, version)) if version.mod_revision <= revision => Some(version),
            _ => history.at(key, revision),
        };
        if let Some(version) = version
            && !page.take(key, version)
        {
            break;
        }
        if old == Some(key) {
            old = history.key_after(key);
        }
    }
    page.page
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

    /// Takes one more, or says where the next page begins and answers false. The first one is always
    /// taken, so that every page gets on.
    fn take(&mut self, key: &Bytes, version: &Version) -> bool {
        let item: KeyValue = version.to_key_value(key, self.keys_only);
        let bytes = self.bytes + item.key.len() + item.value.len();
        let full = self.page.items.len() == self.items_max || bytes > SCAN_PAGE_BYTES_MAX;
        if full && !self.page.items.is_empty() {
            self.page.next = Some(key.clone());
            return false;
        }
        self.bytes = bytes;
        self.page.items.push(item);
        true
    }
}
