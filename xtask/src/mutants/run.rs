//! Builds and runs the tests over the copy, with one bug at a time.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::list::Mutant;
use super::tree::Copy;

/// How long a build may take.
const BUILD_SECONDS: u64 = 3_600;
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Killed(Duration),
    Survived,
    TookTooLong,
    DoesNotBuild,
    DoesNotApply(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(after) => write!(f, "killed after {} s", after.as_secs()),
            Self::Survived => f.write_str("SURVIVED: its test passes"),
            Self::TookTooLong => f.write_str("NOT KILLED IN TIME"),
            Self::DoesNotBuild => f.write_str("DOES NOT BUILD"),
            Self::DoesNotApply(why) => write!(f, "DOES NOT APPLY: {why}"),
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    Badly,
    TooLate,
}

/// Runs them all; how many were not killed.
pub(super) fn all(root: &Path, mutants: &[&Mutant]) -> io::Result<usize> {
    let place = root.join("target/mutants");
    let workshop = Workshop {
        copy: Copy::make(root, &place.join("tree"))?,
        target: place.join("target"),
    };
    workshop.check_sound(mutants)?;
    let mut alive = 0;
    for mutant in mutants {
        let fate = workshop.try_one(mutant)?;
        println!("{}: {fate}", mutant.name);
        alive += usize::from(!matches!(fate, Fate::Killed(_)));
    }
    Ok(alive)
}

struct Workshop {
    copy: Copy,
    target: PathBuf,
}

impl Workshop {
    /// Without any bug the tests pass, or else to see one fail says nothing.
    fn check_sound(&self, mutants: &[&Mutant]) -> io::Result<()> {
        let tests: BTreeSet<&[String]> = mutants.iter().map(|m| &m.test[..]).collect();
        for test in tests {
            let seconds = mutants.iter().filter(|m| m.test == test).map(|m| m.seconds);
            let seconds = seconds.max().unwrap_or(BUILD_SECONDS);
            let built = self.build(test)?;
            if built != Ended::Well || self.run(test, seconds)? != Ended::Well {
                let what = format!("without a bug, `cargo {}` does not pass", test.join(" "));
                return Err(io::Error::other(what));
            }
        }
        Ok(())
    }

    fn try_one(&self, mutant: &Mutant) -> io::Result<Fate> {
        let mut sound: Vec<(&str, String)> = Vec::new();
        let mut wrong = None;
        for edit in &mutant.edits {
            let text = self.copy.read(&edit.file)?;
            match edit.apply(&text) {
                Ok(mutated) => self.copy.write(&edit.file, &mutated)?,
                Err(why) => wrong = Some(why),
            }
            sound.push((&edit.file, text));
        }
        let fate = match wrong {
            Some(why) => Ok(Fate::DoesNotApply(why)),
            None => self.judge(mutant),
        };
        // The first text of a file is the sound one.
        for (file, text) in sound.iter().rev() {
            self.copy.write(file, text)?;
        }
        fate
    }

    fn judge(&self, mutant: &Mutant) -> io::Result<Fate> {
        if self.build(&mutant.test)? != Ended::Well {
            return Ok(Fate::DoesNotBuild);
        }
        let began = Instant::now();
        Ok(match self.run(&mutant.test, mutant.seconds)? {
            Ended::Well => Fate::Survived,
            Ended::Badly => Fate::Killed(began.elapsed()),
            Ended::TooLate => Fate::TookTooLong,
        })
    }

    fn build(&self, test: &[String]) -> io::Result<Ended> {
        let mut words = for_cargo(test).to_vec();
        words.push("--no-run".to_owned());
        self.cargo(&words, BUILD_SECONDS)
    }

    fn run(&self, test: &[String], seconds: u64) -> io::Result<Ended> {
        self.cargo(test, seconds)
    }

    fn cargo(&self, words: &[String], seconds: u64) -> io::Result<Ended> {
        let mut command = Command::new("cargo");
        command
            .args(words)
            .current_dir(self.copy.root())
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("CARGO_MANIFEST_DIR")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let limit = Duration::from_secs(seconds);
        wait(&mut command.spawn()?, limit)
    }
}

/// What is said to cargo, without what is said to the tests.
fn for_cargo(test: &[String]) -> &[String] {
    let end = test.iter().position(|word| word == "--");
    &test[..end.unwrap_or(test.len())]
}

/// Waits for the end of a command, which is ended when its time is over, with all it started.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Ended> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() {
                Ended::Well
            } else {
                Ended::Badly
            });
        }
        if began.elapsed() > limit {
            // The group has the number of its first process.
            let group = format!("-{}", child.id());
            Command::new("kill")
                .args(["-KILL", "--", &group])
                .status()?;
            child.wait()?;
            return Ok(Ended::TooLate);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        wait(&mut command.spawn().unwrap(), limit).unwrap()
    }

    #[test]
    fn commands_end_well_badly_or_too_late() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("exit 0", long), Ended::Well);
        assert_eq!(shell("exit 3", long), Ended::Badly);
        assert_eq!(shell("sleep 600", Duration::ZERO), Ended::TooLate);
    }
}
