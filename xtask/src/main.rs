//! `cargo xtask tidy` keeps the walls of the house: what is forbidden is in tables at the head of
//! each file; what is excepted is named there too, with its reason, and an exception that nothing
//! needs any more is itself reported. `cargo xtask mutants` tries the tests.
//!
//! No dependencies, so that it is built before anything else is.

mod circles;
mod documents;
mod invariants;
mod manifests;
mod mutants;
mod report;
mod sizes;
mod source;
mod walls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use report::{Exceptions, Violation};
use source::SourceFile;

const USAGE: &str = "usage: cargo xtask tidy [--root DIR]
       cargo xtask mutants [--list] [NAME...]

tidy checks every source file, manifest and decision record under DIR (default: this workspace).
It prints one line per violation, `path:line: rule: what`, and exits with 1 if there is any.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = match words[..] {
        ["tidy"] => workspace_root(),
        ["tidy", "--root", root] => PathBuf::from(root),
        ["mutants", "--help" | "-h"] => {
            println!("{}", mutants::USAGE);
            return ExitCode::SUCCESS;
        }
        ["mutants", ref words @ ..] => return mutants::main(&workspace_root(), words),
        ["help" | "--help" | "-h"] | ["tidy", "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match tidy(&root) {
        Ok((files, violations)) if violations.is_empty() => {
            println!("tidy: {files} files, all in order");
            ExitCode::SUCCESS
        }
        Ok((files, violations)) => {
            for violation in &violations {
                println!("{violation}");
            }
            println!("tidy: {files} files, {} violations", violations.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: {}: {error}", root.display());
            ExitCode::from(2)
        }
    }
}

/// Asked at run time: the build may be shared by several checkouts.
fn workspace_root() -> PathBuf {
    let here = PathBuf::from(".");
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .and_then(|xtask| xtask.parent().map(Path::to_path_buf))
        .unwrap_or(here)
}

/// Checks everything; also says how many files that was.
fn tidy(root: &Path) -> std::io::Result<(usize, Vec<Violation>)> {
    let files = source::collect(root)?;
    let mut exceptions = Exceptions::default();
    let mut violations = Vec::new();
    let rust: Vec<&SourceFile> = files.iter().filter(|file| file.is_rust()).collect();
    for file in &files {
        violations.extend(sizes::check_text(file));
        violations.extend(documents::check(file));
    }
    for file in &rust {
        violations.extend(sizes::check(file, &mut exceptions));
        violations.extend(walls::check(file, &mut exceptions));
    }
    violations.extend(circles::check(&rust, &mut exceptions));
    violations.extend(manifests::check(&files));
    violations.extend(invariants::check(&files));
    violations.extend(mutants::check(root));
    violations.extend(exceptions.unused());
    violations.sort();
    violations.dedup();
    Ok((files.len(), violations))
}
