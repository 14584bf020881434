//! The commands on one key: `put`, `append`, `get`, `delete`, `cas`; and `compact`.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use kv_client::limits::{VALUE_BYTES_MAX, check_key, check_value};
use kv_client::{CasOutcome, ClientConfig, ClientError, KvClient};
use kv_client::{Expect, KeyValue, Written};
use serde_json::{Map, Value, json};

use crate::cli::{CasArgs, ClientArgs, CompactArgs, DeleteArgs, GetArgs, PutArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, insert_bytes, printable};

/// Opens a client as its configuration says.
///
/// # Errors
/// When the configuration cannot be read or used.
pub(crate) async fn connect(args: &ClientArgs) -> Result<KvClient, Failure> {
    let path = &args.config;
    if !path.exists() {
        return Err(Failure::usage(format!(
            "no client configuration at {}: name one with -c or FLOTILLA_CONFIG, or start a \
             cluster with `flotilla cluster`",
            path.display()
        )));
    }
    let config = ClientConfig::load(path).map_err(ClientError::from)?;
    Ok(KvClient::connect(config).await?)
}

/// `flotilla put`.
///
/// # Errors
/// When the write was not done, or is not known to be.
pub(crate) async fn put(args: &PutArgs, output: &mut Output) -> Outcome {
    let (key, value) = (key_of(&args.key)?, value_of(&args.value)?);
    let client = connect(&args.client).await?;
    let written = client.put(key, value).await?;
    client.close().await;
    tell_written(&written, output)
}

/// `flotilla append`.
///
/// # Errors
/// When the write was not done, or is not known to be.
pub(crate) async fn append(args: &PutArgs, output: &mut Output) -> Outcome {
    let (key, value) = (key_of(&args.key)?, value_of(&args.value)?);
    let client = connect(&args.client).await?;
    let written = client.append(key, value).await?;
    client.close().await;
    tell_written(&written, output)
}

/// `flotilla get`.
///
/// # Errors
/// When there is no answer.
pub(crate) async fn get(args: &GetArgs, output: &mut Output) -> Outcome {
    let key = key_of(&args.key)?;
    let client = connect(&args.client).await?;
    let found = match args.revision {
        Some(revision) => client.get_at(key.clone(), revision).await?,
        None if args.stale => client.get_stale(key.clone()).await?,
        None => client.get(key.clone()).await?,
    };
    client.close().await;
    let Some(pair) = found else {
        return Err(absent(&key));
    };
    if output.is_json() {
        output.line(|| pair_object(&pair, true), String::new)?;
    } else {
        output.bytes(&pair.value)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// `flotilla delete`.
///
/// # Errors
/// When the write was not done, or is not known to be.
pub(crate) async fn delete(args: &DeleteArgs, output: &mut Output) -> Outcome {
    let key = key_of(&args.key)?;
    let client = connect(&args.client).await?;
    let deleted = client.delete(key.clone()).await?;
    client.close().await;
    let revision = deleted.revision;
    if output.is_json() || deleted.existed {
        output.line(
            || json!({ "existed": deleted.existed, "revision": revision }),
            || format!("deleted, revision {revision}"),
        )?;
        output.flush()?;
    }
    if deleted.existed {
        Ok(Exit::Done)
    } else {
        Err(absent(&key))
    }
}

/// `flotilla cas`.
///
/// # Errors
/// When the write was not done, or is not known to be.
pub(crate) async fn cas(args: &CasArgs, output: &mut Output) -> Outcome {
    let (key, value) = (key_of(&args.key)?, value_of(&args.new)?);
    let expect = match (&args.expectation.expect, args.expectation.version) {
        (Some(expected), _) => Expect::Value(argument_bytes(expected)),
        (None, Some(version)) => Expect::Version(version),
        (None, None) => Expect::Absent,
    };
    let client = connect(&args.client).await?;
    let outcome = client.cas(key.clone(), expect, value).await?;
    client.close().await;
    let (written, version, revision) = match &outcome {
        CasOutcome::Written(written) => (true, written.version, written.revision),
        CasOutcome::Mismatch { version, revision } => (false, *version, *revision),
    };
    if output.is_json() || written {
        output.line(
            || json!({ "written": written, "version": version, "revision": revision }),
            || format!("written, revision {revision}, version {version}"),
        )?;
        output.flush()?;
    }
    if written {
        return Ok(Exit::Done);
    }
    let key = printable(&key);
    let found = match version {
        0 => format!("{key} is absent"),
        version => format!("{key} holds something else, version {version}"),
    };
    Err(Failure::new(Exit::No, format!("not written: {found}")))
}

/// `flotilla compact`.
///
/// # Errors
/// When it was not done, or is not known to be.
pub(crate) async fn compact(args: &CompactArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.client).await?;
    let oldest = client.compact(args.revision).await?;
    client.close().await;
    output.line(
        || json!({ "oldest": oldest }),
        || format!("compacted, oldest revision {oldest}"),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

/// A pair as JSON, with its value or without.
pub(crate) fn pair_object(pair: &KeyValue, with_value: bool) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &pair.key);
    if with_value {
        insert_bytes(&mut object, "value", &pair.value);
    }
    object.insert("create_revision".to_owned(), pair.create_revision.into());
    object.insert("mod_revision".to_owned(), pair.mod_revision.into());
    object.insert("version".to_owned(), pair.version.into());
    Value::Object(object)
}

fn tell_written(written: &Written, output: &mut Output) -> Outcome {
    let (revision, version, bytes) = (written.revision, written.version, written.value_bytes);
    output.line(
        || json!({ "revision": revision, "version": version, "value_bytes": bytes }),
        || format!("written, revision {revision}, version {version}"),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

fn absent(key: &[u8]) -> Failure {
    Failure::new(Exit::No, format!("{} is absent", printable(key)))
}

fn argument_bytes(argument: &OsStr) -> Bytes {
    Bytes::copy_from_slice(argument.as_bytes())
}

fn key_of(argument: &OsStr) -> Result<Bytes, Failure> {
    let key = argument_bytes(argument);
    check_key(&key).map_err(ClientError::from)?;
    Ok(key)
}

/// A value from the command line, or from standard input. Not more is read than a value may be.
fn value_of(argument: &OsStr) -> Result<Bytes, Failure> {
    let value = if argument == OsStr::new("-") {
        let mut value = Vec::new();
        io::stdin()
            .take(VALUE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut value)
            .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Failure::refused(format!(
                "the value on standard input is larger than the limit of {VALUE_BYTES_MAX} bytes"
            )));
        }
        Bytes::from(value)
    } else {
        argument_bytes(argument)
    };
    check_value(&value).map_err(ClientError::from)?;
    Ok(value)
}
