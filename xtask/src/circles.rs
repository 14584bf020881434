//! Import circles between the files of one crate: a file that needs, by whatever detour, one that
//! needs it. Such files can only be understood together, so they are one file in two.
//!
//! An edge is a path in the code (`use` or not) that leads to another file; a name that a module
//! re-exports leads to where it comes from. What a module re-exports of its own children is not an
//! edge: it is how a tree of modules shows its leaves. Tests are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::report::{Exceptions, Violation};
use crate::source::{Import, SourceFile, imports, is_word};

/// Re-exports of re-exports that are followed.
const REEXPORT_DEPTH_MAX: usize = 8;

type ModulePath = Vec<String>;

pub(crate) fn check(files: &[&SourceFile], exceptions: &mut Exceptions) -> Vec<Violation> {
    let mut crates: BTreeMap<&str, Vec<&SourceFile>> = BTreeMap::new();
    for file in files {
        if module_path(file).is_some() && file.tests_from > 0 {
            crates.entry(file.crate_name()).or_default().push(file);
        }
    }
    let graphs = crates.values().map(|files| Graph::new(files));
    graphs.flat_map(|graph| graph.circles(exceptions)).collect()
}

/// `raft-core/src/node/driver.rs` is `node::driver`; the root is empty. None outside of `src`.
fn module_path(file: &SourceFile) -> Option<ModulePath> {
    let inside = file
        .path
        .strip_prefix(file.crate_name())?
        .strip_prefix("/src/")?;
    let mut parts: Vec<String> = inside
        .strip_suffix(".rs")?
        .split('/')
        .map(str::to_owned)
        .collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
        parts.pop();
    }
    Some(parts)
}

struct Module<'a> {
    file: &'a SourceFile,
    imports: Vec<Import>,
}

struct Graph<'a> {
    modules: BTreeMap<ModulePath, Module<'a>>,
    /// From a module to another, with the line of the first path that leads there.
    edges: BTreeMap<ModulePath, BTreeMap<ModulePath, usize>>,
}

impl<'a> Graph<'a> {
    fn new(files: &[&'a SourceFile]) -> Self {
        let mut modules = BTreeMap::new();
        for file in files {
            let imports = imports(file);
            if let Some(path) = module_path(file) {
                modules.insert(path, Module { file, imports });
            }
        }
        let edges = BTreeMap::new();
        let mut graph = Self { modules, edges };
        let of = |(at, module): (&ModulePath, _)| (at.clone(), graph.edges_of(at, module));
        graph.edges = graph.modules.iter().map(of).collect();
        graph
    }

    fn edges_of(&self, at: &ModulePath, module: &Module<'_>) -> BTreeMap<ModulePath, usize> {
        let mut edges = BTreeMap::new();
        let mut add = |target: ModulePath, line: usize| {
            if target != *at {
                edges.entry(target).or_insert(line);
            }
        };
        for import in &module.imports {
            let Some(path) = self.absolute(at, &import.path) else {
                continue;
            };
            let target = self.resolve(&path, REEXPORT_DEPTH_MAX);
            let is_own_child = target.starts_with(at) && target != *at;
            if !(import.is_public && is_own_child) {
                add(target, import.line);
            }
        }
        for (line, path) in paths_in_code(module.file) {
            if let Some(path) = self.absolute(at, &path) {
                add(self.resolve(&path, REEXPORT_DEPTH_MAX), line);
            }
        }
        edges
    }

    /// The path from the root of the crate; none if it leads out of the crate.
    fn absolute(&self, at: &ModulePath, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let mut absolute = match first.as_str() {
            "crate" => Vec::new(),
            "self" => at.clone(),
            "super" => at.split_last()?.1.to_vec(),
            _ => {
                let mut child = at.clone();
                child.push(first.clone());
                if !self.modules.contains_key(&child) {
                    return None;
                }
                child
            }
        };
        for segment in rest {
            if segment == "super" {
                absolute.pop()?;
            } else {
                absolute.push(segment.clone());
            }
        }
        Some(absolute)
    }

    /// The module that a path leads to, through re-exports.
    fn resolve(&self, path: &[String], depth: usize) -> ModulePath {
        let known = (0..=path.len())
            .rev()
            .find(|end| self.modules.contains_key(&path[..*end]));
        let end = known.unwrap_or(0);
        let at = path[..end].to_vec();
        let Some((name, module)) = path.get(end).zip(self.modules.get(&at)) else {
            return at;
        };
        let gives = |import: &&Import| import.is_public && import.name == *name;
        let origin = module
            .imports
            .iter()
            .find(gives)
            .and_then(|import| self.absolute(&at, &import.path));
        match origin {
            Some(origin) if depth > 0 => self.resolve(&origin, depth - 1),
            _ => at,
        }
    }

    /// One circle through every file that is on one and not on one reported before.
    fn circles(&self, exceptions: &mut Exceptions) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut seen = BTreeSet::new();
        for start in self.edges.keys() {
            if seen.contains(start) {
                continue;
            }
            let Some(circle) = self.shortest_circle(start, exceptions) else {
                continue;
            };
            seen.extend(circle.iter().cloned());
            violations.push(self.report(&circle));
        }
        violations
    }

    /// Breadth first, from `start` back to it.
    fn shortest_circle(
        &self,
        start: &ModulePath,
        exceptions: &mut Exceptions,
    ) -> Option<Vec<ModulePath>> {
        let mut came_from: BTreeMap<&ModulePath, &ModulePath> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for target in self.edges.get(at)?.keys() {
                let (from, to) = (self.path_of(at), self.path_of(target));
                if came_from.contains_key(target) || exceptions.allow("circle", from, to) {
                    continue;
                }
                came_from.insert(target, at);
                if target == start {
                    return Some(Self::walk_back(start, &came_from));
                }
                queue.push_back(target);
            }
        }
        None
    }

    fn walk_back(
        start: &ModulePath,
        came_from: &BTreeMap<&ModulePath, &ModulePath>,
    ) -> Vec<ModulePath> {
        let mut circle = vec![start.clone()];
        let mut at = came_from[start];
        while at != start {
            circle.push(at.clone());
            at = came_from[at];
        }
        circle.reverse();
        circle.rotate_right(1);
        circle
    }

    fn report(&self, circle: &[ModulePath]) -> Violation {
        let mut what = String::new();
        let next = circle.iter().cycle().skip(1);
        for (from, to) in circle.iter().zip(next) {
            let line = self.edges[from][to];
            what.push_str(&format!("{}:{line} -> ", self.path_of(from)));
        }
        what.push_str(self.path_of(&circle[0]));
        let second = &circle[1 % circle.len()];
        let line = self.edges[&circle[0]][second];
        Violation::new(self.path_of(&circle[0]), line, "circle", what)
    }

    fn path_of(&self, module: &ModulePath) -> &str {
        self.modules
            .get(module)
            .map_or("", |module| &module.file.path)
    }
}

/// Paths outside of `use` that begin with `crate`, `self` or `super`, or with a name followed by
/// `::`.
fn paths_in_code(file: &SourceFile) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut in_use = false;
    for (number, line) in file.product() {
        let code = line.code.trim_start();
        in_use |= ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .any(|opening| code.starts_with(opening));
        if in_use {
            in_use = !code.contains(';');
            continue;
        }
        found.extend(paths_in_line(&line.code).map(|path| (number, path)));
    }
    found
}

fn paths_in_line(code: &str) -> impl Iterator<Item = Vec<String>> {
    let continues_path = |c: char| is_word(c) || c == ':';
    code.split(move |c| !continues_path(c))
        .filter(|piece| piece.contains("::") && !piece.starts_with(':'))
        .map(|piece| {
            let segments = piece.split("::").filter(|segment| !segment.is_empty());
            segments.map(str::to_owned).collect()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| SourceFile::new(&format!("a/src/{name}"), text))
            .collect();
        let files: Vec<_> = files.iter().collect();
        let found = check(&files, &mut Exceptions::of(&[]));
        found.iter().map(ToString::to_string).collect()
    }

    const LIB: (&str, &str) = (
        "lib.rs",
        "mod b;\nmod c;\nmod d;\npub use b::B;\npub use c::C;\n",
    );

    #[test]
    fn a_tree_of_imports_is_no_circle() {
        let found = circles(&[
            LIB,
            ("b.rs", "use crate::c::C;\n"),
            ("c.rs", "use crate::d;\n"),
            (
                "d.rs",
                "use std::fmt;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n",
            ),
        ]);
        assert_eq!(found, [] as [&str; 0]);
    }

    #[test]
    fn a_circle_is_reported_as_a_path() {
        let found = circles(&[
            LIB,
            ("b.rs", "use crate::c::C;\n"),
            ("c.rs", "\nuse crate::{x, d::D};\n"),
            ("d.rs", "fn f() {\n    let b = super::b::B::new();\n}\n"),
        ]);
        let expected =
            "a/src/b.rs:1: circle: a/src/b.rs:1 -> a/src/c.rs:2 -> a/src/d.rs:2 -> a/src/b.rs";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_reexported_name_leads_to_where_it_comes_from() {
        let found = circles(&[
            LIB,
            ("b.rs", "use crate::C;\n"),
            ("c.rs", "use crate::B;\n"),
            ("d.rs", ""),
        ]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].ends_with("a/src/b.rs:1 -> a/src/c.rs:1 -> a/src/b.rs"),
            "{found:?}"
        );
    }

    #[test]
    fn a_module_and_its_child_may_not_need_each_other() {
        let child = ("b/child.rs", "use super::Parent;\n");
        let passes_on = (
            "b/mod.rs",
            "mod child;\npub use child::Child;\nstruct Parent;\n",
        );
        assert_eq!(circles(&[LIB, passes_on, child]), [] as [&str; 0]);
        let needs = (
            "b/mod.rs",
            "mod child;\nuse child::Child;\nstruct Parent;\n",
        );
        assert_eq!(circles(&[LIB, needs, child]).len(), 1);
        let calls = (
            "b/mod.rs",
            "mod child;\nfn f() { child::g() }\nstruct Parent;\n",
        );
        assert_eq!(circles(&[LIB, calls, child]).len(), 1);
    }

    #[test]
    fn crates_are_apart() {
        let b = SourceFile::new("one/src/b.rs", "use crate::c::C;\n");
        let c = SourceFile::new("two/src/c.rs", "use crate::b::B;\n");
        assert_eq!(check(&[&b, &c], &mut Exceptions::of(&[])), []);
    }
}
