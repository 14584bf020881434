//! `cargo xtask mutants`: puts bugs into a copy of the tree, one at a time, and runs the test that
//! must notice. A bug that no test notices says that the tests look away.
//!
//! The list is `xtask/mutants.txt`; its format is described at its head. `tidy` checks that each
//! bug can still be put in, so that the list cannot rot.

mod list;
mod run;
mod tree;

use std::path::Path;
use std::process::ExitCode;

use crate::report::Violation;
use list::Mutant;

pub(crate) const LIST: &str = "xtask/mutants.txt";

pub(crate) const USAGE: &str = "usage: cargo xtask mutants [--list] [NAME...]

Puts each bug of xtask/mutants.txt (or only those named) into a copy of the tree and runs its test,
which must fail. Exits with 0 where all of them were killed, with 1 where one survived, did not
build, took too long or is not in the tree any more. --list prints the names.";

/// Runs the mutants that `words` name, or all.
pub(crate) fn main(root: &Path, words: &[&str]) -> ExitCode {
    let mutants = match read(root) {
        Ok(mutants) => mutants,
        Err(error) => {
            eprintln!("mutants: {error}");
            return ExitCode::from(2);
        }
    };
    if words == ["--list"] {
        for mutant in &mutants {
            println!("{}: {}", mutant.name, mutant.about);
        }
        return ExitCode::SUCCESS;
    }
    let unknown = words
        .iter()
        .find(|word| mutants.iter().all(|mutant| mutant.name != **word));
    if let Some(unknown) = unknown {
        eprintln!("mutants: there is no mutant {unknown}\n\n{USAGE}");
        return ExitCode::from(2);
    }
    let is_chosen = |mutant: &&Mutant| words.is_empty() || words.contains(&mutant.name.as_str());
    let chosen: Vec<&Mutant> = mutants.iter().filter(is_chosen).collect();
    match run::all(root, &chosen) {
        Ok(0) => {
            println!("mutants: {} of {0} killed", chosen.len());
            ExitCode::SUCCESS
        }
        Ok(alive) => {
            println!(
                "mutants: {} of {} killed",
                chosen.len() - alive,
                chosen.len()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

fn read(root: &Path) -> Result<Vec<Mutant>, String> {
    let text = std::fs::read_to_string(root.join(LIST));
    let text = text.map_err(|error| format!("{LIST}: {error}"))?;
    list::parse(&text).map_err(|(line, what)| format!("{LIST}:{line}: {what}"))
}

/// Whether every mutant can still be put in. A tree without a list has nothing to check.
pub(crate) fn check(root: &Path) -> Vec<Violation> {
    let Ok(text) = std::fs::read_to_string(root.join(LIST)) else {
        return Vec::new();
    };
    let mutants = match list::parse(&text) {
        Ok(mutants) => mutants,
        Err((line, what)) => return vec![Violation::new(LIST, line, "mutant", what)],
    };
    let mut violations = Vec::new();
    for mutant in &mutants {
        for edit in &mutant.edits {
            let text = std::fs::read_to_string(root.join(&edit.file)).unwrap_or_default();
            if let Err(what) = edit.apply(&text) {
                let what = format!("{}: {what}", mutant.name);
                violations.push(Violation::new(LIST, edit.line, "mutant", what));
            }
        }
    }
    violations
}
