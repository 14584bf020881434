//! `flotilla scan`: keys in order, page by page as they come.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use kv_client::KeyValue;
use kv_client::ScanRange;

use crate::cli::ScanArgs;
use crate::commands::data::{connect, pair_object};
use crate::exit::{Exit, Outcome};
use crate::output::{Output, printable};

/// Runs `flotilla scan`.
///
/// # Errors
/// When there is no answer. What was printed until then is right as far as it goes.
pub(crate) async fn run(args: &ScanArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.client).await?;
    let mut pages = client.scan(range_of(args));
    while let Some(pairs) = pages.next_page().await? {
        for pair in &pairs {
            let with_value = !args.keys_only;
            output.line(|| pair_object(pair, with_value), || words(pair, with_value))?;
        }
        output.flush()?;
    }
    client.close().await;
    Ok(Exit::Done)
}

fn words(pair: &KeyValue, with_value: bool) -> String {
    let key = printable(&pair.key);
    if with_value {
        format!("{key}\t{}", printable(&pair.value))
    } else {
        key
    }
}

fn range_of(args: &ScanArgs) -> ScanRange {
    let bytes = |argument: &OsStr| Bytes::copy_from_slice(argument.as_bytes());
    let prefix = ScanRange::prefix(bytes(&args.prefix));
    let from = args.from.as_deref().map(bytes).unwrap_or_default();
    let to = args.to.as_deref().map(bytes);
    ScanRange {
        from: from.max(prefix.from),
        // None is the end of the store, so it is above every other bound.
        to: match (to, prefix.to) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        },
        limit: args.limit,
        keys_only: args.keys_only,
        revision: None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn range(line: &[&str]) -> (Vec<u8>, Option<Vec<u8>>) {
        let arguments = ["flotilla", "scan"].iter().chain(line);
        let cli = Cli::try_parse_from(arguments).expect("a good command line");
        let Command::Scan(args) = cli.command else {
            panic!("a scan");
        };
        let range = range_of(&args);
        (range.from.to_vec(), range.to.map(|to| to.to_vec()))
    }

    #[test]
    fn prefix_and_bounds_are_combined() {
        assert_eq!(range(&[]), (vec![], None));
        assert_eq!(range(&["b"]), (b"b".to_vec(), Some(b"c".to_vec())));
        let inside = range(&["b", "--from", "ba", "--to", "bb"]);
        assert_eq!(inside, (b"ba".to_vec(), Some(b"bb".to_vec())));
        let outside = range(&["b", "--from", "a", "--to", "z"]);
        assert_eq!(outside, (b"b".to_vec(), Some(b"c".to_vec())));
        let open = range(&["--from", "a"]);
        assert_eq!(open, (b"a".to_vec(), None));
    }
}
