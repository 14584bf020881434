//! `flotilla demo`: a throw-away cluster of real processes (`stage`), clients that write down what
//! they do and are told (`workload`, `journal`), a leader that is killed again and again, members
//! that change in between (`changes`), and the judges of what was written down (`verdict`).

mod changes;
mod journal;
mod narrator;
mod stage;
mod verdict;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use self::journal::Journal;
use self::narrator::Narrator;
use self::stage::Stage;
use self::verdict::Verdict;
use self::workload::Workload;
use crate::cli::DemoArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::signals::EndSignals;

/// How long the clients run undisturbed before the first fail-over, and after each.
const CALM: Duration = Duration::from_secs(2);

/// Runs `flotilla demo`.
///
/// # Errors
/// When the cluster cannot be started or does not recover.
pub(crate) async fn run(args: &DemoArgs, output: &mut Output) -> Outcome {
    let mut signals = EndSignals::register()?;
    let narrator = Narrator::new(output.is_json());
    let mut stage = Stage::start(&narrator, args.state.into()).await?;
    let played = tokio::select! {
        played = play(&mut stage, args.failovers, &narrator) => played,
        signal = signals.wait() => {
            Err(Failure::stopped(format!("{signal}: stopped before anything was judged")))
        }
    };
    let dir = stage.stop().await;
    let journal = played?;
    narrator.say("judging the history");
    let judged = tokio::task::spawn_blocking(move || verdict::judge(journal));
    let verdict = judged
        .await
        .map_err(|error| Failure::stopped(format!("a judge panicked: {error}")))?;
    output.line(|| verdict.object(), || verdict.table())?;
    output.flush()?;
    if verdict.is_good() {
        return Ok(Exit::Done);
    }
    Err(keep_evidence(&verdict, dir))
}

/// Runs the clients, the fail-overs and the changes. What comes out is the whole history, with a
/// last look at everything.
async fn play(stage: &mut Stage, failovers: u32, narrator: &Narrator) -> Result<Journal, Failure> {
    let workload = Workload::start(&stage.config).await?;
    sleep(CALM).await;
    for number in 1..=failovers {
        fail_over(stage, &workload, number, narrator).await?;
        for step in changes::steps_after(number, failovers) {
            changes::take(step, stage, narrator).await?;
        }
        sleep(CALM).await;
    }
    narrator.say("reading everything back");
    workload.finish(&stage.client).await
}

/// Kills the leader, and waits until writes are acknowledged again and the killed node is back.
async fn fail_over(
    stage: &Stage,
    workload: &Workload,
    number: u32,
    narrator: &Narrator,
) -> Result<(), Failure> {
    let killed = stage.leader().await?;
    let began = Instant::now();
    stage.kill(killed).await;
    let again = workload.acknowledged_after(Instant::now()).await?;
    let paused = again.saturating_duration_since(began);
    workload.failed_over(paused);
    let paused = paused.as_millis();
    let leader = stage.leader().await?;
    narrator.say(&format!(
        "fail-over {number}: killed leader node {killed}; writes go on after {paused} ms, \
         node {leader} leads"
    ));
    stage.caught_up(killed).await
}

/// What is needed to find out what went wrong outlives the run.
fn keep_evidence(verdict: &Verdict, dir: tempfile::TempDir) -> Failure {
    let dir: PathBuf = dir.keep();
    let mut kept = vec![keep(
        &dir,
        "history",
        "ndjson",
        &verdict.history.to_ndjson(),
    )];
    if let Some(picture) = &verdict.picture {
        kept.push(keep(&dir, "picture", "html", picture));
    }
    let (why, kept) = (verdict.problems.join("; "), kept.join(", "));
    let dir = dir.display();
    Failure::new(Exit::No, format!("{why}; {kept}, the nodes are in {dir}"))
}

/// Writes a piece of evidence; says where it is, or why it is not.
fn keep(dir: &Path, name: &str, ending: &str, content: &str) -> String {
    let path = dir.join(name).with_extension(ending);
    match std::fs::write(&path, content) {
        Ok(()) => format!("the {name} is {}", path.display()),
        Err(error) => format!("no {name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use history::{Op, Reply};

    use super::journal::{End, Journal};
    use super::*;

    #[test]
    fn what_went_wrong_is_kept_and_can_be_found() {
        let mut journal = Journal::new();
        let mut seat = journal.seat();
        let at = Instant::now();
        let begun = journal.begin(&seat, at, &Op::get("k")).expect("new");
        let (value, version) = ("nobody".into(), 1);
        let read = End::Answered(Reply::Found { value, version }, None);
        journal.end(&mut seat, &begun, at, read).expect("begun");
        let verdict = verdict::judge(journal);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_owned();
        let message = keep_evidence(&verdict, dir).line().expect("it says why");
        for name in ["history.ndjson", "picture.html"] {
            let kept = path.join(name);
            assert!(message.contains(&kept.display().to_string()), "{message}");
            assert!(std::fs::metadata(&kept).expect("it was written").len() > 0);
        }
        std::fs::remove_dir_all(path).expect("it is there");
    }
}
