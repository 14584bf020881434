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
    newest_revision: u64,
) -> ScanPage {
    let mut page = Page::new(range, revision);
    let mut live = live.range(range.from.clone()..).peekable();
    // What is deleted by now may have been there then, but is not there now.
    let deleted = (revision < newest_revision).then(|| history.deleted_from(&range.from));
    let mut deleted = deleted.into_iter().flatten().peekable();
    for examined in 0.. {
        let is_live = match (live.peek(), deleted.peek()) {
            (Some((live_key, _)), Some((deleted_key, _))) => live_key < deleted_key,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        let (key, version) = if is_live {
            let (key, newest) = live.next().expect("just seen");
            if newest.mod_revision <= revision {
                (key, Some(newest))
            } else {
                (key, history.at(newest.previous, revision))
            }
        } else {
            let (key, last) = deleted.next().expect("just seen");
            (key, history.at(*last, revision))
        };
        if !range.holds(key) {
            break;
        }
        if examined == SCAN_EXAMINED_MAX {
            page.page.next = Some(key.clone());
            break;
        }
        if let Some(version) = version
            && !page.take(key, version)
        {
            break;
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

    /// Takes one more, or says where the next page begins and answers false. The first one is
    /// always taken, so that every page gets on.
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
