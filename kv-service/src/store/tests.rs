//! Tests of the store: against a model that keeps every revision as a whole map, and one by one.

use std::collections::{BTreeMap, VecDeque};

use kv_api::limits::{
    HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX, KEY_BYTES_MAX, SCAN_KEYS_MAX, SCAN_PAGE_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> WriteOp {
    let (key, value) = (key.into(), value.into());
    WriteOp::Put { key, value }
}

fn append(key: impl Into<Bytes>, value: impl Into<Bytes>) -> WriteOp {
    let (key, value) = (key.into(), value.into());
    WriteOp::Append { key, value }
}

fn delete(key: impl Into<Bytes>) -> WriteOp {
    WriteOp::Delete { key: key.into() }
}

fn cas(key: impl Into<Bytes>, expect: Expect, value: impl Into<Bytes>) -> WriteOp {
    let (key, value) = (key.into(), value.into());
    WriteOp::Cas { key, expect, value }
}

fn written(revision: u64, version: u64, value_bytes: u64) -> CommandReply {
    CommandReply::Written(Written {
        revision,
        version,
        value_bytes,
    })
}

fn all() -> ScanRange {
    ScanRange {
        from: Bytes::new(),
        to: None,
        limit: 0,
        keys_only: false,
    }
}

fn value_at(store: &KvStore, key: &'static str, revision: Option<u64>) -> Option<Bytes> {
    let (found, _) = store.get(&Bytes::from(key), revision).expect("readable");
    found.map(|found| found.value)
}

/// All pages of a scan at one revision.
fn scan_all(store: &KvStore, mut range: ScanRange, mut revision: Option<u64>) -> Vec<KeyValue> {
    let mut items = Vec::new();
    loop {
        let page = store.scan(&range, revision).expect("readable");
        items.extend(page.items);
        revision = Some(page.revision);
        match page.next {
            Some(next) => range.from = next,
            None => return items,
        }
    }
}

/// Says the same as the store in the most naive way.
struct Model {
    retention: Retention,
    /// The whole content at every revision.
    maps: Vec<BTreeMap<Bytes, KeyValue>>,
    /// End and size of superseded versions, in the order of their ends.
    superseded: VecDeque<(u64, usize)>,
    oldest: u64,
}

impl Model {
    fn new(retention: Retention) -> Self {
        Self {
            retention,
            maps: vec![BTreeMap::new()],
            superseded: VecDeque::new(),
            oldest: 0,
        }
    }

    fn revision(&self) -> u64 {
        self.maps.len() as u64 - 1
    }

    fn now(&self) -> &BTreeMap<Bytes, KeyValue> {
        self.maps.last().expect("never empty")
    }

    fn write(&mut self, op: &WriteOp) -> CommandReply {
        let revision = self.revision();
        let newest = self.now().get(op.key()).cloned();
        let version = newest.as_ref().map_or(0, |newest| newest.version);
        let value = match op {
            WriteOp::Put { value, .. } => value.clone(),
            WriteOp::Append { value, .. } => {
                let head = newest.as_ref().map_or(Bytes::new(), |it| it.value.clone());
                [head, value.clone()].concat().into()
            }
            WriteOp::Delete { key } => {
                let existed = newest.is_some();
                if existed {
                    let mut map = self.now().clone();
                    map.remove(key);
                    self.take_over(map, newest);
                }
                return CommandReply::Deleted {
                    existed,
                    revision: self.revision(),
                };
            }
            WriteOp::Cas { expect, value, .. } => {
                let as_expected = match expect {
                    Expect::Absent | Expect::Version(0) => newest.is_none(),
                    Expect::Value(it) => newest.as_ref().is_some_and(|newest| newest.value == it),
                    Expect::Version(it) => {
                        newest.as_ref().is_some_and(|newest| newest.version == *it)
                    }
                };
                if !as_expected {
                    return CommandReply::Mismatch { version, revision };
                }
                value.clone()
            }
        };
        let next = KeyValue {
            key: op.key().clone(),
            value: value.clone(),
            create_revision: newest
                .as_ref()
                .map_or(revision + 1, |it| it.create_revision),
            mod_revision: revision + 1,
            version: version + 1,
        };
        let mut map = self.now().clone();
        map.insert(op.key().clone(), next);
        self.take_over(map, newest);
        written(revision + 1, version + 1, value.len() as u64)
    }

    fn take_over(&mut self, map: BTreeMap<Bytes, KeyValue>, superseded: Option<KeyValue>) {
        self.maps.push(map);
        if let Some(it) = superseded {
            let end = self.revision();
            self.superseded
                .push_back((end, it.key.len() + it.value.len()));
        }
        let bytes = |it: &VecDeque<(u64, usize)>| it.iter().map(|(_, bytes)| bytes).sum::<usize>();
        while self.superseded.len() > self.retention.revisions_max
            || bytes(&self.superseded) > self.retention.bytes_max
        {
            let (end, _) = self.superseded.pop_front().expect("not empty");
            self.oldest = self.oldest.max(end);
        }
    }

    fn compact(&mut self, revision: u64) -> CommandReply {
        let newest = self.revision();
        if revision > newest {
            return CommandReply::Refused(CommandError::FutureRevision { revision, newest });
        }
        let oldest = self.oldest.max(revision);
        self.oldest = oldest;
        self.superseded.retain(|(end, _)| *end > oldest);
        CommandReply::Compacted { oldest }
    }

    fn readable(&self, revision: u64) -> Result<&BTreeMap<Bytes, KeyValue>, QueryError> {
        let (oldest, newest) = (self.oldest, self.revision());
        if revision > newest {
            return Err(QueryError::FutureRevision { revision, newest });
        }
        if revision < oldest {
            return Err(QueryError::Compacted { revision, oldest });
        }
        Ok(&self.maps[revision as usize])
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(WriteOp),
    /// Compacts to this part of the revisions made so far.
    Compact(f64),
    /// Reads everything at this part of the revisions made so far.
    Read {
        at: f64,
        from: Bytes,
        to: Option<Bytes>,
        limit: u32,
        keys_only: bool,
    },
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0_u8..80).prop_map(|n| Bytes::from(format!("key-{n:02}"))),
        2 => (0_u8..3).prop_map(|n| Bytes::from(format!("hot-{n}"))),
        // Keys that are the beginning of each other.
        1 => (1_usize..4).prop_map(|n| Bytes::from(vec![0; n])),
        1 => (1_usize..4).prop_map(|n| Bytes::from(vec![0xff; n])),
    ]
}

fn any_value() -> impl Strategy<Value = Bytes> {
    vec(0_u8..3, 0..12).prop_map(Bytes::from)
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        any_value().prop_map(Expect::Value),
        (0_u64..4).prop_map(Expect::Version),
    ]
}

pub(crate) fn any_write() -> impl Strategy<Value = WriteOp> {
    prop_oneof![
        4 => (any_key(), any_value()).prop_map(|(key, value)| put(key, value)),
        2 => (any_key(), any_value()).prop_map(|(key, value)| append(key, value)),
        3 => any_key().prop_map(delete),
        3 => (any_key(), any_expect(), any_value())
            .prop_map(|(key, expect, value)| cas(key, expect, value)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let read = (
        0.0..1.1,
        prop_oneof![Just(Bytes::new()), any_key()],
        proptest::option::of(any_key()),
        0_u32..9,
        any::<bool>(),
    );
    prop_oneof![
        40 => any_write().prop_map(Step::Write),
        1 => (0.0..1.1).prop_map(Step::Compact),
        4 => read.prop_map(|(at, from, to, limit, keys_only)| Step::Read {
            at,
            from,
            to,
            limit,
            keys_only,
        }),
    ]
}

fn any_retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        Just(Retention::default()),
        (0_usize..60, 0_usize..500).prop_map(|(revisions_max, bytes_max)| Retention {
            revisions_max,
            bytes_max,
        }),
    ]
}

fn check_reads(store: &KvStore, model: &Model, step: &Step) {
    let Step::Read {
        at,
        from,
        to,
        limit,
        keys_only,
    } = step
    else {
        return;
    };
    let revision = (model.revision() as f64 * at) as u64;
    let range = ScanRange {
        from: from.clone(),
        to: to.clone(),
        limit: *limit,
        keys_only: *keys_only,
    };
    let map = match model.readable(revision) {
        Ok(map) => map,
        Err(error) => {
            assert_eq!(store.get(from, Some(revision)), Err(error.clone()));
            assert_eq!(store.scan(&range, Some(revision)), Err(error));
            return;
        }
    };
    let expected_get = Ok((map.get(from).cloned(), revision));
    assert_eq!(store.get(from, Some(revision)), expected_get);
    let within = |key: &Bytes| key >= from && to.as_ref().is_none_or(|to| key < to);
    let mut expected: Vec<KeyValue> = map
        .values()
        .filter(|item| within(&item.key))
        .cloned()
        .collect();
    if *keys_only {
        expected
            .iter_mut()
            .for_each(|item| item.value = Bytes::new());
    }
    assert_eq!(scan_all(store, range.clone(), Some(revision)), expected);
    let page = store.scan(&range, Some(revision)).expect("readable");
    let wanted = if *limit == 0 {
        usize::MAX
    } else {
        *limit as usize
    };
    assert_eq!(page.items.len(), expected.len().min(wanted));
    let next = expected.get(page.items.len()).map(|item| item.key.clone());
    assert_eq!(page.next, next);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(
        retention in any_retention(),
        steps in vec(any_step(), 1..400),
    ) {
        let mut store = KvStore::with_retention(retention);
        let mut model = Model::new(retention);
        for step in &steps {
            match step {
                Step::Write(op) => prop_assert_eq!(store.write(op.clone()), model.write(op)),
                Step::Compact(at) => {
                    let revision = (model.revision() as f64 * at) as u64;
                    prop_assert_eq!(store.compact(revision), model.compact(revision));
                }
                Step::Read { .. } => check_reads(&store, &model, step),
            }
            prop_assert_eq!(store.revision(), model.revision());
            prop_assert_eq!(store.oldest(), model.oldest);
            prop_assert_eq!(store.len(), model.now().len());
        }
        store.check();
        for revision in model.oldest..=model.revision() {
            let expected: Vec<KeyValue> =
                model.maps[revision as usize].values().cloned().collect();
            prop_assert_eq!(scan_all(&store, all(), Some(revision)), expected);
        }
    }
}

#[test]
fn revisions_and_versions_count_as_documented() {
    let mut store = KvStore::new();
    assert_eq!(store.write(put("a", "1")), written(1, 1, 1));
    assert_eq!(store.write(put("b", "1")), written(2, 1, 1));
    assert_eq!(store.write(put("a", "1")), written(3, 2, 1));
    assert_eq!(store.write(append("a", "23")), written(4, 3, 3));
    let existed = |existed, revision| CommandReply::Deleted { existed, revision };
    assert_eq!(store.write(delete("absent")), existed(false, 4));
    assert_eq!(store.write(delete("a")), existed(true, 5));
    assert_eq!(store.write(delete("a")), existed(false, 5));
    assert_eq!(store.write(append("a", "new")), written(6, 1, 3));
    let (found, revision) = store.get(&Bytes::from("a"), None).expect("readable");
    let found = found.expect("there");
    assert_eq!(
        (found.create_revision, found.mod_revision, revision),
        (6, 6, 6)
    );
    let versions = [
        None,
        Some("1"),
        Some("1"),
        Some("1"),
        Some("123"),
        None,
        Some("new"),
    ];
    for (revision, expected) in versions.into_iter().enumerate() {
        let found = value_at(&store, "a", Some(revision as u64));
        assert_eq!(found, expected.map(Bytes::from), "at {revision}");
    }
}

#[test]
fn compare_and_set_changes_only_what_is_as_expected() {
    let mut store = KvStore::new();
    let mismatch = |version, revision| CommandReply::Mismatch { version, revision };
    assert_eq!(
        store.write(cas("k", Expect::Version(1), "x")),
        mismatch(0, 0)
    );
    let expect_empty = Expect::Value(Bytes::new());
    assert_eq!(store.write(cas("k", expect_empty, "x")), mismatch(0, 0));
    assert_eq!(store.write(cas("k", Expect::Absent, "x")), written(1, 1, 1));
    assert_eq!(store.write(cas("k", Expect::Absent, "y")), mismatch(1, 1));
    assert_eq!(
        store.write(cas("k", Expect::Version(0), "y")),
        mismatch(1, 1)
    );
    assert_eq!(
        store.write(cas("k", Expect::Value("y".into()), "z")),
        mismatch(1, 1)
    );
    assert_eq!(
        store.write(cas("k", Expect::Value("x".into()), "y")),
        written(2, 2, 1)
    );
    assert_eq!(
        store.write(cas("k", Expect::Version(2), "z")),
        written(3, 3, 1)
    );
    assert_eq!(
        store.write(cas("new", Expect::Version(0), "")),
        written(4, 1, 0)
    );
}

#[test]
fn what_is_over_a_limit_changes_nothing() {
    let mut store = KvStore::new();
    let largest = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    let too_large = Bytes::from(vec![7; VALUE_BYTES_MAX + 1]);
    let long_key = Bytes::from(vec![7; KEY_BYTES_MAX + 1]);
    let full = VALUE_BYTES_MAX as u64;
    assert_eq!(
        store.write(put("full", largest.clone())),
        written(1, 1, full)
    );
    let before = store.digest();
    for (op, what, bytes) in [
        (put("", "x"), "key", 0),
        (put(long_key.clone(), "x"), "key", KEY_BYTES_MAX + 1),
        (delete(long_key), "key", KEY_BYTES_MAX + 1),
        (put("k", too_large.clone()), "value", VALUE_BYTES_MAX + 1),
        (append("k", too_large.clone()), "value", VALUE_BYTES_MAX + 1),
        (append("full", "x"), "value", VALUE_BYTES_MAX + 1),
        (
            append("full", largest.clone()),
            "value",
            2 * VALUE_BYTES_MAX,
        ),
        (
            cas("k", Expect::Value(too_large.clone()), "x"),
            "value",
            VALUE_BYTES_MAX + 1,
        ),
        (
            cas("full", Expect::Version(1), too_large),
            "value",
            VALUE_BYTES_MAX + 1,
        ),
    ] {
        match store.write(op) {
            CommandReply::Refused(CommandError::Limit(exceeded)) => {
                assert_eq!(
                    (exceeded.what.as_str(), exceeded.bytes),
                    (what, bytes as u64)
                );
            }
            other => panic!("{what} of {bytes} bytes: {other:?}"),
        }
        assert_eq!(store.digest(), before);
    }
    assert_eq!(store.write(append("full", "")), written(2, 2, full));
    assert_eq!(value_at(&store, "full", None), Some(largest));
}

#[test]
fn a_view_does_not_move_and_a_clone_shares_everything() {
    let mut store = KvStore::new();
    for n in 0..100_000 {
        store.write(put(format!("key-{n:06}"), "first"));
    }
    store.write(put("key-000001", "second"));
    let (view, digest) = (store.view(), store.digest());
    // Nothing was copied: the maps are the very same ones.
    assert!(view.live.0.ptr_eq(&store.live.0));
    assert!(view.history.shares_with(&store.history));

    store.write(put("key-000000", "later"));
    store.write(delete("key-000001"));
    store.write(put("new", "later"));
    store.compact(store.revision());
    assert_eq!(value_at(&view, "key-000000", None), Some("first".into()));
    assert_eq!(value_at(&view, "key-000001", None), Some("second".into()));
    assert_eq!(
        value_at(&view, "key-000001", Some(100_000)),
        Some("first".into())
    );
    assert_eq!(value_at(&view, "new", None), None);
    assert_eq!(
        (view.revision(), view.oldest(), view.len()),
        (100_001, 0, 100_000)
    );
    assert_eq!(view.digest(), digest);
    assert_ne!(store.digest(), digest);
}

#[test]
fn history_is_bounded_in_revisions() {
    let mut store = KvStore::new();
    for n in 0..HISTORY_REVISIONS_MAX + 5 {
        store.write(put("hot", n.to_string()));
    }
    // The first write superseded nothing.
    assert_eq!(store.history_len(), HISTORY_REVISIONS_MAX);
    assert_eq!(store.oldest(), 5);
    assert_eq!(value_at(&store, "hot", Some(5)), Some("4".into()));
    let (revision, oldest) = (4, 5);
    let refused = Err(QueryError::Compacted { revision, oldest });
    assert_eq!(store.get(&Bytes::from("hot"), Some(4)), refused);
    store.check();
}

#[test]
fn history_is_bounded_in_bytes() {
    let mut store = KvStore::new();
    let value = Bytes::from(vec![1; VALUE_BYTES_MAX]);
    for _ in 0..200 {
        store.write(put("hot", value.clone()));
    }
    let each = "hot".len() + VALUE_BYTES_MAX;
    assert_eq!(store.history_len(), HISTORY_BYTES_MAX / each);
    assert_eq!(store.history_bytes(), HISTORY_BYTES_MAX / each * each);
    assert_eq!(store.oldest(), 200 - store.history_len() as u64);
    store.check();
}

/// Appending one byte at a time makes versions whose sizes add up to the square of the number of
/// appends. They count as what they are, so they are bounded like all others.
#[test]
fn repeated_appends_are_bounded_in_bytes() {
    let retention = Retention {
        bytes_max: 1 << 20,
        ..Retention::default()
    };
    let mut store = KvStore::with_retention(retention);
    for _ in 0..20_000 {
        store.write(append("log", "x"));
        assert!(store.history_bytes() <= 1 << 20);
    }
    assert_eq!(
        value_at(&store, "log", None).map(|value| value.len()),
        Some(20_000)
    );
    assert!(store.history_len() < 60, "{}", store.history_len());
    store.check();
}

#[test]
fn retention_of_nothing_keeps_the_newest_only() {
    let mut store = KvStore::with_retention(Retention {
        revisions_max: 0,
        bytes_max: 0,
    });
    store.write(put("a", "1"));
    store.write(put("b", "1"));
    assert_eq!(store.oldest(), 0);
    store.write(put("a", "2"));
    assert_eq!((store.oldest(), store.history_len()), (3, 0));
    store.write(delete("b"));
    assert_eq!((store.oldest(), store.history_len()), (4, 0));
}

#[test]
fn compaction_keeps_what_holds_at_its_revision() {
    let mut store = KvStore::new();
    store.write(put("a", "1"));
    store.write(put("b", "1"));
    store.write(put("a", "2"));
    store.write(delete("b"));
    store.write(put("a", "3"));
    assert_eq!(store.compact(4), CommandReply::Compacted { oldest: 4 });
    assert_eq!(value_at(&store, "a", Some(4)), Some("2".into()));
    assert_eq!(value_at(&store, "b", Some(4)), None);
    // Only a=2, superseded at 5, is left; of the deleted key there is no trace.
    assert_eq!(store.history_len(), 1);
    let refused = Err(QueryError::Compacted {
        revision: 3,
        oldest: 4,
    });
    assert_eq!(store.scan(&all(), Some(3)), refused);
    assert_eq!(store.compact(2), CommandReply::Compacted { oldest: 4 });
    let future = CommandError::FutureRevision {
        revision: 6,
        newest: 5,
    };
    assert_eq!(store.compact(6), CommandReply::Refused(future));
    assert_eq!(store.compact(5), CommandReply::Compacted { oldest: 5 });
    assert_eq!((store.history_len(), store.history_bytes()), (0, 0));
    store.check();
}

#[test]
fn a_large_compaction_is_paid_off_in_steps_that_nobody_sees() {
    let mut store = KvStore::new();
    for n in 0..5_000 {
        store.write(put("hot", n.to_string()));
    }
    let newest = store.revision();
    let held = store.history_len();
    assert_eq!(
        store.compact(newest),
        CommandReply::Compacted { oldest: newest }
    );
    assert!(store.history_len() < held && store.history_len() > 0);
    let revision = newest - 1;
    let refused = Err(QueryError::Compacted {
        revision,
        oldest: newest,
    });
    assert_eq!(store.get(&Bytes::from("hot"), Some(revision)), refused);
    let digest = store.digest();
    for _ in 0..10 {
        store.write(delete("absent"));
    }
    assert_eq!(store.history_len(), 0);
    assert_eq!(store.digest(), digest);
    store.check();
}

#[test]
fn pages_of_a_scan_agree_while_writes_go_on() {
    let mut store = KvStore::new();
    for n in 0..100 {
        store.write(put(format!("key-{n:02}"), "old"));
    }
    let expected = scan_all(&store, all(), None);
    let mut range = ScanRange { limit: 7, ..all() };
    let (mut found, mut revision, mut round) = (Vec::new(), None, 0);
    loop {
        let page = store.scan(&range, revision).expect("readable");
        assert_eq!(page.revision, 100);
        revision = Some(page.revision);
        found.extend(page.items);
        // Behind and ahead of the scan: change, delete, create, delete and create again.
        for n in (round..100).step_by(13) {
            store.write(put(format!("key-{n:02}"), "new"));
            store.write(delete(format!("key-{:02}", (n + 5) % 100)));
            store.write(put(format!("key-{n:02}-new"), "new"));
        }
        round += 1;
        match page.next {
            Some(next) => range.from = next,
            None => break,
        }
    }
    assert_eq!(round, 15);
    assert_eq!(found, expected);
}

#[test]
fn a_page_is_bounded_in_keys_and_bytes() {
    let mut store = KvStore::new();
    for n in 0..SCAN_KEYS_MAX + 1 {
        store.write(put(format!("a-{n:06}"), ""));
    }
    let largest = Bytes::from(vec![1; VALUE_BYTES_MAX]);
    let half = Bytes::from(vec![1; SCAN_PAGE_BYTES_MAX / 2]);
    for (key, value) in [
        ("b-0", &half),
        ("b-1", &half),
        ("b-2", &largest),
        ("b-3", &half),
    ] {
        store.write(put(key, value.clone()));
    }
    for limit in [0, SCAN_KEYS_MAX + 1, u32::MAX] {
        let page = store
            .scan(&ScanRange { limit, ..all() }, None)
            .expect("readable");
        assert_eq!(page.items.len(), SCAN_KEYS_MAX as usize);
        assert_eq!(page.next, Some(Bytes::from("a-010000")));
    }
    let mut range = ScanRange {
        from: "b".into(),
        ..all()
    };
    // Two halves and their keys are just too much; one that is larger than a page comes alone.
    for expected in ["b-0", "b-1", "b-2", "b-3"] {
        let page = store.scan(&range, None).expect("readable");
        assert_eq!(page.items.len(), 1);
        assert_eq!(page.items[0].key, expected);
        range.from = page.next.unwrap_or_default();
    }
    assert_eq!(range.from, "");
    let keys_only = ScanRange {
        from: "b".into(),
        keys_only: true,
        ..all()
    };
    let page = store.scan(&keys_only, None).expect("readable");
    assert_eq!((page.items.len(), page.next), (4, None));
    assert!(page.items.iter().all(|item| item.value.is_empty()));
}

#[test]
fn a_scan_outside_or_backwards_is_empty() {
    let mut store = KvStore::new();
    assert_eq!(scan_all(&store, all(), None), []);
    store.write(put("m", "x"));
    store.write(delete("m"));
    store.write(put("m", "y"));
    for (from, to) in [("a", "b"), ("x", "z"), ("m", "m"), ("z", "a"), ("m\0", "n")] {
        let range = ScanRange {
            from: from.into(),
            to: Some(to.into()),
            ..all()
        };
        for revision in 0..=3 {
            assert_eq!(
                scan_all(&store, range.clone(), Some(revision)),
                [],
                "{from}..{to}"
            );
        }
    }
}

/// A scan of an old revision walks over all that came later. It does so in bounded pieces.
#[test]
fn a_page_looks_at_a_bounded_number_of_keys() {
    let mut store = KvStore::new();
    store.write(put("zzz", "old"));
    for n in 0..SCAN_EXAMINED_MAX {
        store.write(put(format!("key-{n:06}"), "later"));
    }
    let first = store.scan(&all(), Some(1)).expect("readable");
    assert_eq!(
        (first.items.len(), first.next),
        (0, Some(Bytes::from("zzz")))
    );
    let found = scan_all(&store, all(), Some(1));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].value, "old");
}

/// CPU time of this thread in nanoseconds: what else runs on the machine counts less than in wall
/// time.
pub(crate) fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let on_cpu = stat.split_whitespace().next().expect("has fields");
    on_cpu.parse().expect("a number")
}

/// Run with `cargo test --release -p kv-service -- --ignored --nocapture costs`.
#[test]
#[ignore = "measures, does not check"]
fn write_costs() {
    const KEYS: u64 = 100_000;
    const ROUNDS: u64 = 10;
    let mut store = KvStore::new();
    for round in 0..ROUNDS {
        let start = cpu_nanos();
        for n in 0..KEYS {
            // Spread over the keys, so that neighbours in time are no neighbours in the map.
            let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
            store.write(put(format!("key-{key:08}"), vec![1; 256]));
        }
        let each = (cpu_nanos() - start) / KEYS;
        println!("round {round}: {each} ns per put of 256 bytes");
    }
}
