//! Opening a database: whose it is, and what becomes of one that an older version wrote. What its
//! log holds is read in `database`.

use std::path::Path;

use raft_core::StorageError;
use rocksdb::{DB, DBRecoveryMode, IteratorMode, Options, WriteBatch};

use super::calls::write_synced;
use super::keys::{self, OWNER_KEY};
use super::options::{ENTRIES, META, database_options, families, family_options};
use super::tail::find_torn;
use crate::errors::{damaged, foreign};
use crate::files::Disk;
use crate::owner::WalOwner;
use crate::rocks_errors::rocks_error;

/// Opens the database in `dir`. A new one becomes `owner`'s; another's is refused before anything
/// of a log is changed in it; one of an older version becomes one of this version.
pub(super) fn open(
    dir: &Path,
    owner: &WalOwner,
    create: bool,
    write_buffer_bytes: usize,
) -> Result<DB, StorageError> {
    let failed = |error| rocks_error("open", dir, &error);
    if !dir.join("CURRENT").is_file() {
        let mut options = database_options(create);
        options.create_missing_column_families(create);
        let db = DB::open_cf_descriptors(&options, dir, families(write_buffer_bytes));
        let db = db.map_err(failed)?;
        claim(&db, dir, owner)?;
        return Ok(db);
    }
    let options = existing_options(dir)?;
    let names = DB::list_cf(&options, dir).map_err(failed)?;
    if names.iter().any(|name| name != ENTRIES && name != META) {
        return Err(foreign(dir, "is a database, but not a raft log"));
    }
    if names.iter().any(|name| name == META) {
        let db = DB::open_cf_descriptors(&options, dir, families(write_buffer_bytes));
        let db = db.map_err(failed)?;
        if check_owner(&db, dir, owner, META)? {
            return Ok(db);
        }
        // A crash came between the making of the family and its first batch.
        return own(db, dir, owner);
    }
    // Before version 3 there was one family. Its owner is asked before anything is added to it.
    let [entries, _] = families(write_buffer_bytes);
    let mut db = DB::open_cf_descriptors(&options, dir, [entries]).map_err(failed)?;
    if !check_owner(&db, dir, owner, ENTRIES)? {
        check_empty(&db, dir)?;
    }
    db.create_cf(META, &family_options(write_buffer_bytes))
        .map_err(failed)?;
    own(db, dir, owner)
}

/// Options for a database that is there. Where its newest record is torn, it is left out: RocksDB
/// alone does not know that nothing was synced from there on.
fn existing_options(dir: &Path) -> Result<Options, StorageError> {
    let mut options = database_options(false);
    if let Some(torn) = find_torn(&Disk::default(), dir)? {
        let (path, offset, bytes) = (torn.path.display(), torn.offset, torn.bytes);
        tracing::warn!(%path, offset, bytes, "the torn end of the log is left out");
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    }
    Ok(options)
}

/// Gives a database what it needs to be of this version.
fn own(db: DB, dir: &Path, owner: &WalOwner) -> Result<DB, StorageError> {
    if check_owner(&db, dir, owner, ENTRIES)? {
        upgrade(&db, dir, owner)?;
    } else {
        claim(&db, dir, owner)?;
    }
    Ok(db)
}

/// Opens a database of this version as it is: nothing is written to it, not even by RocksDB itself.
pub(super) fn open_read_only(dir: &Path, owner: &WalOwner) -> Result<DB, StorageError> {
    if !dir.join("CURRENT").is_file() {
        return Err(foreign(dir, "holds no database"));
    }
    let options = existing_options(dir)?;
    let db = DB::open_cf_for_read_only(&options, dir, [ENTRIES, META], false)
        .map_err(|error| rocks_error("open", dir, &error))?;
    if check_owner(&db, dir, owner, META)? {
        Ok(db)
    } else {
        Err(foreign(
            dir,
            "is of an older version; it is of this one when its node has been started",
        ))
    }
}

fn check_empty(db: &DB, dir: &Path) -> Result<(), StorageError> {
    match db.iterator(IteratorMode::Start).next() {
        None => Ok(()),
        Some(Ok(_)) => Err(foreign(dir, "is a database, but not a raft log")),
        Some(Err(error)) => Err(rocks_error("read", dir, &error)),
    }
}

/// The family that was opened with the database.
pub(super) fn family<'a>(db: &'a DB, name: &str) -> &'a rocksdb::ColumnFamily {
    db.cf_handle(name).expect("it was opened with the database")
}

/// Makes a new database `owner`'s.
fn claim(db: &DB, dir: &Path, owner: &WalOwner) -> Result<(), StorageError> {
    check_empty(db, dir)?;
    let mut batch = WriteBatch::default();
    batch.put_cf(family(db, META), OWNER_KEY, keys::encode_owner(owner));
    write_synced(db, dir, batch)
}

/// Whether this family names an owner, who must be this one.
fn check_owner(db: &DB, dir: &Path, owner: &WalOwner, name: &str) -> Result<bool, StorageError> {
    let value = db.get_cf(family(db, name), OWNER_KEY);
    let Some(value) = value.map_err(|error| rocks_error("read", dir, &error))? else {
        return Ok(false);
    };
    match keys::decode_owner(&value) {
        Some((_, Some(found))) => found.check(dir, owner).map(|()| true),
        Some((version, None)) => {
            let read = keys::FORMAT_VERSION;
            let what = format!("has version {version}, this program reads up to {read}");
            Err(foreign(dir, what))
        }
        None => Err(damaged(dir, 0, "its owner cannot be read")),
    }
}

/// Moves all that is no entry to the family of its own, in one batch, and names the version that is
/// written from now on, so that an older program refuses what it would misread.
fn upgrade(db: &DB, dir: &Path, owner: &WalOwner) -> Result<(), StorageError> {
    let (entries, meta) = (family(db, ENTRIES), family(db, META));
    let mut batch = WriteBatch::default();
    let mut iterator = db.raw_iterator();
    iterator.seek_to_first();
    while let Some((key, value)) = iterator.item() {
        if keys::is_entry_key(key) {
            // Entries are many, and stand together.
            iterator.seek(keys::BEHIND_ENTRIES);
            continue;
        }
        batch.put_cf(meta, key, value);
        batch.delete_cf(entries, key);
        iterator.next();
    }
    let status = iterator.status();
    status.map_err(|error| rocks_error("read", dir, &error))?;
    batch.put_cf(meta, OWNER_KEY, keys::encode_owner(owner));
    write_synced(db, dir, batch)
}
