//! Runs a test over its seeds and says which one failed.

/// Seeds of every test that has any.
const SEEDS: u64 = 100;

/// Says which seed is running when a test fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} failed; SEED={seed} runs it alone");
        }
    }
}

/// Runs a test over all seeds, or over the one in the environment.
pub(crate) fn each_seed(test: impl Fn(u64)) {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..=seed
        }
        Err(_) => 1..=SEEDS,
    };
    for seed in seeds {
        let announce = Announce(seed);
        test(announce.0);
    }
}
