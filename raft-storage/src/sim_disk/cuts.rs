//! Which disks a power cut may leave. Sectors, lengths and the names of each directory are chosen
//! independently of each other: all combinations below a bound, a seeded sample above it.

use super::file::Tear;
use super::image::Image;
use super::operation::FileId;
use super::random::Random;
use super::tree::{Names, Node, SimDir, Tree};

/// In which order the changes of one directory become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameOrder {
    /// The earlier ones first: what `docs/disk-format.md` assumes.
    #[default]
    AsMade,
    /// Any: to see what relies on the order.
    Any,
}

/// The disks that a power cut at one moment may leave.
#[derive(Clone, Debug)]
pub struct Cuts {
    /// Some of them, or all. The first one has nothing of what was pending.
    pub images: Vec<Image>,
    /// How many combinations there are, without torn sectors.
    pub combinations: u128,
    /// Whether the images are all combinations, without torn sectors.
    pub exhaustive: bool,
    /// How many of the images were drawn, or have a torn sector.
    pub sampled: usize,
}

/// One thing that may or may not have reached the disk.
#[derive(Clone, Debug)]
struct Choice {
    what: What,
    /// When each of the versions was made; version 0 is what was durable before.
    made_at: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// How many changes of a directory, from the first one on.
    Names(usize),
    /// Whether one change of a directory.
    Name(usize, usize),
    Length(FileId),
    Sector(FileId, u64),
}

impl Choice {
    fn options(&self) -> usize {
        self.made_at.len() + 1
    }

    /// The newest version of a disk that writes everything in order, at this moment.
    fn in_order(&self, moment: u64) -> usize {
        self.made_at.iter().filter(|at| **at <= moment).count()
    }
}

/// How often a sample has some sector torn: in one image of so many.
const TORN_ONE_IN: usize = 3;

pub(super) fn cuts(tree: &Tree, order: NameOrder, bound: usize, random: &mut Random) -> Cuts {
    let choices = choices(tree, order);
    let options = choices.iter().map(|choice| choice.options() as u128);
    let combinations = options.fold(1_u128, u128::saturating_mul);
    let exhaustive = combinations <= bound as u128;
    let mut images = Vec::new();
    if exhaustive {
        let mut picked = vec![0; choices.len()];
        loop {
            images.push(persisted(tree, &choices, &picked, None));
            if !advance(&mut picked, &choices) {
                break;
            }
        }
    } else {
        sample(tree, &choices, bound, random, &mut images);
    }
    let drawn = if exhaustive { 0 } else { images.len() };
    let torn = tear_newest(tree, &choices, random);
    let sampled = drawn + torn.len();
    images.extend(torn);
    Cuts {
        images,
        combinations,
        exhaustive,
        sampled,
    }
}

fn choices(tree: &Tree, order: NameOrder) -> Vec<Choice> {
    let mut choices = Vec::new();
    for (number, dir) in tree.dirs.iter().enumerate() {
        let at = dir.pending.iter().map(|change| change.at);
        match order {
            NameOrder::AsMade if dir.pending.is_empty() => {}
            NameOrder::AsMade => choices.push(Choice {
                what: What::Names(number),
                made_at: at.collect(),
            }),
            NameOrder::Any => choices.extend(at.enumerate().map(|(change, at)| Choice {
                what: What::Name(number, change),
                made_at: vec![at],
            })),
        }
    }
    for (file, held) in &tree.files {
        if !may_have_a_name(tree, *file) {
            continue;
        }
        if !held.lengths().is_empty() {
            choices.push(Choice {
                what: What::Length(*file),
                made_at: held.lengths().iter().map(|(_, at)| *at).collect(),
            });
        }
        choices.extend(held.sectors().iter().map(|(sector, versions)| Choice {
            what: What::Sector(*file, *sector),
            made_at: versions.iter().map(|version| version.at).collect(),
        }));
    }
    choices
}

fn may_have_a_name(tree: &Tree, file: FileId) -> bool {
    let node = Node::File(file);
    tree.dirs.iter().any(|dir| {
        let mut names = dir.durable.clone();
        let mut found = names.values().any(|n| *n == node);
        for change in &dir.pending {
            change.kind.apply(&mut names);
            found = found || names.values().any(|n| *n == node);
        }
        found
    })
}

/// The next combination; false behind the last one.
fn advance(picked: &mut [usize], choices: &[Choice]) -> bool {
    for (pick, choice) in picked.iter_mut().zip(choices) {
        *pick += 1;
        if *pick < choice.options() {
            return true;
        }
        *pick = 0;
    }
    false
}

/// None, all, every disk that writes in order as far as they fit in, and drawn ones.
fn sample(
    tree: &Tree,
    choices: &[Choice],
    bound: usize,
    random: &mut Random,
    images: &mut Vec<Image>,
) {
    let mut moments: Vec<u64> = choices.iter().flat_map(|c| c.made_at.clone()).collect();
    moments.sort_unstable();
    moments.dedup();
    let in_order = |moment: u64| -> Vec<usize> {
        choices
            .iter()
            .map(|choice| choice.in_order(moment))
            .collect()
    };
    images.push(persisted(tree, choices, &in_order(0), None));
    images.push(persisted(tree, choices, &in_order(u64::MAX), None));
    let left = bound.saturating_sub(2);
    let step = (2 * moments.len()).div_ceil(left.max(1)).max(1);
    for moment in moments.iter().step_by(step) {
        images.push(persisted(tree, choices, &in_order(*moment), None));
    }
    while images.len() < bound {
        // Mostly old, mostly new, or anything.
        let bias = random.below(3);
        let picked: Vec<usize> = choices
            .iter()
            .map(|choice| match (bias, random.below(8)) {
                (0, 1..) => 0,
                (1, 1..) => choice.options() - 1,
                _ => random.below(choice.options()),
            })
            .collect();
        let is_torn = random.below(TORN_ONE_IN) == 0;
        let tear = is_torn
            .then(|| draw_tear(choices, &picked, random))
            .flatten();
        images.push(persisted(tree, choices, &picked, tear));
    }
}

type TornSector = (FileId, u64, Tear);

/// A sector whose newest picked version was being written, and how far that came.
fn draw_tear(choices: &[Choice], picked: &[usize], random: &mut Random) -> Option<TornSector> {
    let written: Vec<_> = choices
        .iter()
        .zip(picked)
        .filter_map(|(choice, pick)| match choice.what {
            What::Sector(file, sector) if *pick > 0 => Some((file, sector)),
            _ => None,
        })
        .collect();
    if written.is_empty() {
        return None;
    }
    let (file, sector) = written[random.below(written.len())];
    let tear = match random.below(4) {
        0 => Tear::Garbage(u8::try_from(random.below(256)).unwrap_or(1)),
        _ => Tear::Front(1 + random.below(super::SECTOR_BYTES - 1)),
    };
    Some((file, sector, tear))
}

/// Everything was written, but the sector that was written last is torn in a few ways.
fn tear_newest(tree: &Tree, choices: &[Choice], random: &mut Random) -> Vec<Image> {
    let newest = choices
        .iter()
        .filter_map(|choice| match choice.what {
            What::Sector(file, sector) => Some((*choice.made_at.last()?, file, sector)),
            _ => None,
        })
        .max_by_key(|(at, ..)| *at);
    let Some((_, file, sector)) = newest else {
        return Vec::new();
    };
    let picked: Vec<usize> = choices.iter().map(|choice| choice.options() - 1).collect();
    let drawn = Tear::Front(1 + random.below(super::SECTOR_BYTES - 1));
    let tears = [Tear::Front(1), Tear::Front(8), drawn, Tear::Garbage(7)];
    let torn = tears.map(|tear| persisted(tree, choices, &picked, Some((file, sector, tear))));
    torn.into()
}

fn persisted(tree: &Tree, choices: &[Choice], picked: &[usize], torn: Option<TornSector>) -> Image {
    let pick = |what: What| {
        let position = choices.iter().position(|choice| choice.what == what);
        position.map_or(0, |position| picked[position])
    };
    let names = |dir: &SimDir| -> Names {
        let number = tree.dirs.iter().position(|other| std::ptr::eq(other, dir));
        let number = number.expect("it is one of them");
        let mut names = dir.durable.clone();
        let prefix = pick(What::Names(number));
        for (position, change) in dir.pending.iter().enumerate() {
            if position < prefix || pick(What::Name(number, position)) > 0 {
                change.kind.apply(&mut names);
            }
        }
        names
    };
    tree.image(names, |file, held| {
        let tear = torn.and_then(|(f, sector, tear)| (f == file).then_some((sector, tear)));
        held.persisted(
            pick(What::Length(file)),
            |sector| pick(What::Sector(file, sector)),
            tear,
        )
    })
}
