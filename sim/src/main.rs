//! The simulator as a program: runs one seed, a range of seeds, or a file of them, and says what
//! was found. Reads the wall clock only to print how fast it was.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sim::{Coverage, Drill, Failure, Keep, Options, Report, run, run_world};

/// Ends the program when a rare state was never reached in a run that asked for all of them.
const EXIT_COVERAGE: u8 = 13;

/// Runs clusters of the real protocol in virtual time, from a seed.
///
/// Exit codes: 0 all is well, 2 usage, 10 something panicked, 11 an invariant does not hold,
/// 12 a cluster did not serve again after its faults, 13 a rare state was never reached.
/// With several seeds the code is that of the first one that failed.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
#[command(group = clap::ArgGroup::new("what").required(true))]
struct Arguments {
    /// Run this seed and print what it drew and what it reached.
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// Run the seeds A..B, both included.
    #[arg(long, group = "what", value_name = "A..B", value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Run the seeds of a file: a number at the start of each line, `#` begins a comment.
    #[arg(long, group = "what", value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Protocol events of the phase with faults.
    #[arg(long, default_value_t = sim::STEPS)]
    steps: u64,
    /// Write what happened to this file, one line per event (with --seed).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "replay"])]
    trace: Option<PathBuf>,
    /// Draw the end of the run as a page of HTML: what a judge objects to, or what the nodes did to
    /// each other (with --seed).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "replay"])]
    html: Option<PathBuf>,
    /// Break every cluster on purpose, to see that the runs fail as they should.
    #[arg(long, value_name = "KIND")]
    drill: Option<Drill>,
    /// Fail when a rare state of the table was never reached.
    #[arg(long)]
    require_coverage: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once("..");
    let (low, high) = parts.ok_or("a range looks like 1..1000")?;
    let number = |part: &str| {
        part.trim_start_matches('=')
            .parse::<u64>()
            .map_err(|error| format!("{part:?}: {error}"))
    };
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(format!("{low} is above {high}"));
    }
    Ok((low, high))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.seed.is_none() {
        // One line instead of a backtrace: the seed brings it back.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    }
    match execute(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("sim: {message}");
            ExitCode::from(2)
        }
    }
}

fn execute(arguments: &Arguments) -> Result<u8, String> {
    if let Some(seed) = arguments.seed {
        return run_one(seed, arguments);
    }
    let seeds = match (&arguments.seeds, &arguments.replay) {
        (Some((low, high)), _) => (*low..=*high).collect(),
        (None, Some(file)) => seeds_of(file)?,
        (None, None) => Vec::new(),
    };
    Ok(run_many(&seeds, arguments))
}

fn seeds_of(file: &Path) -> Result<Vec<u64>, String> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|error| format!("{}: {error}", file.display()))?;
    let mut seeds = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let Some(first) = line.split_whitespace().next() else {
            continue;
        };
        let seed = first.parse();
        let seed = seed.map_err(|error| format!("{}:{number}: {error}", file.display()))?;
        seeds.push(seed);
    }
    Ok(seeds)
}

fn run_seed(seed: u64, arguments: &Arguments) -> Report {
    let mut options = Options::draw(seed);
    options.steps = arguments.steps;
    let keep = Keep {
        trace: arguments.trace.is_some(),
        page: arguments.html.is_some(),
    };
    match arguments.drill {
        Some(drill) => run_world(drill.world(options), keep),
        None => run(options, keep),
    }
}

fn run_one(seed: u64, arguments: &Arguments) -> Result<u8, String> {
    let begun = Instant::now();
    let report = run_seed(seed, arguments);
    let took = begun.elapsed().as_secs_f64();
    println!("{:#?}", report.options);
    print!("{}", report.coverage);
    println!("{}", line(&report));
    println!(
        "{} events in {took:.2} s, {:.0} events/s",
        report.steps,
        report.steps as f64 / took
    );
    if let Some(file) = &arguments.trace {
        let written = std::fs::write(file, report.lines.join("\n") + "\n");
        written.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let (Some(file), Some(page)) = (&arguments.html, &report.page) {
        let written = std::fs::write(file, page);
        written.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(report.failure.as_ref().map_or(0, Failure::exit_code))
}

fn line(report: &Report) -> String {
    let mut line = format!(
        "seed {}: {} nodes, {} events in {} virtual s, {} operations, {} committed, {} leaders, \
         trace {:016x}",
        report.options.seed,
        report.options.nodes,
        report.steps,
        report.time / 1_000_000,
        report.operations,
        report.committed,
        report.leaders,
        report.hash
    );
    if let Some(failure) = &report.failure {
        let _ = write!(line, "\n  {failure}");
    }
    line
}

fn run_many(seeds: &[u64], arguments: &Arguments) -> u8 {
    let begun = Instant::now();
    let mut coverage = Coverage::default();
    let (mut steps, mut failed, mut code) = (0, 0, 0);
    for seed in seeds {
        let report = run_seed(*seed, arguments);
        coverage.add(&report.coverage);
        steps += report.steps;
        if let Some(failure) = &report.failure {
            println!("{}", line(&report));
            failed += 1;
            if code == 0 {
                code = failure.exit_code();
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    print!("{coverage}");
    println!(
        "{} seeds, {failed} failed; {steps} events in {took:.1} s, {:.0} events/s",
        seeds.len(),
        steps as f64 / took
    );
    let missing: Vec<_> = coverage.missing().map(sim::Mark::name).collect();
    if !missing.is_empty() {
        println!("never reached: {}", missing.join(", "));
        if code == 0 && arguments.require_coverage {
            return EXIT_COVERAGE;
        }
    }
    code
}
