//! The list of mutants, read from its text. The format is described at the head of the list.

/// A bug that a test must notice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    /// What it does.
    pub(crate) about: String,
    pub(crate) edits: Vec<Edit>,
    /// The arguments of `cargo` that run the test.
    pub(crate) test: Vec<String>,
    /// How long the test may run, without building it.
    pub(crate) seconds: u64,
    /// Where it stands in the list.
    line: usize,
}

/// Lines that become other lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) file: String,
    find: Vec<String>,
    replacement: Vec<String>,
    /// Where it stands in the list, counted from 1.
    pub(crate) line: usize,
}

impl Edit {
    /// The text with the lines replaced, which must be there once.
    pub(crate) fn apply(&self, text: &str) -> Result<String, String> {
        let lines: Vec<&str> = text.lines().collect();
        let mut places = lines
            .windows(self.find.len())
            .enumerate()
            .filter(|(_, window)| *window == self.find)
            .map(|(position, _)| position);
        let place = places.next();
        let place = place.ok_or_else(|| format!("its lines are not in {}", self.file))?;
        if places.next().is_some() {
            return Err(format!("its lines are more than once in {}", self.file));
        }
        let replacement = self.replacement.iter().map(String::as_str);
        let behind = &lines[place + self.find.len()..];
        let all = lines[..place].iter().copied().chain(replacement);
        let mut mutated: Vec<&str> = all.chain(behind.iter().copied()).collect();
        mutated.push("");
        Ok(mutated.join("\n"))
    }
}

/// Reads the list; what is wrong is told with its line, counted from 1.
pub(crate) fn parse(text: &str) -> Result<Vec<Mutant>, (usize, String)> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong = |what: &str| Err((number, what.to_owned()));
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("mutant ") {
            if mutants.iter().any(|mutant| mutant.name == name) {
                return wrong("there are two mutants of this name");
            }
            mutants.push(Mutant {
                name: name.to_owned(),
                line: number,
                ..Mutant::default()
            });
            continue;
        }
        let Some(mutant) = mutants.last_mut() else {
            return wrong("the list does not begin with a mutant");
        };
        if let Err(what) = add(mutant, line, number) {
            return wrong(what);
        }
    }
    mutants.iter().try_for_each(complete)?;
    Ok(mutants)
}

/// One more line about a mutant.
fn add(mutant: &mut Mutant, line: &str, number: usize) -> Result<(), &'static str> {
    const NO_FILE: &str = "a line of code before any `file`";
    if let Some(code) = line.strip_prefix('-') {
        let edit = mutant.edits.last_mut().ok_or(NO_FILE)?;
        if !edit.replacement.is_empty() {
            return Err("a `-` behind a `+`: begin another `file`");
        }
        edit.find.push(code.to_owned());
    } else if let Some(code) = line.strip_prefix('+') {
        let edit = mutant.edits.last_mut().ok_or(NO_FILE)?;
        edit.replacement.push(code.to_owned());
    } else if let Some(about) = line.strip_prefix("about ") {
        about.clone_into(&mut mutant.about);
    } else if let Some(file) = line.strip_prefix("file ") {
        mutant.edits.push(Edit {
            file: file.to_owned(),
            line: number,
            ..Edit::default()
        });
    } else if let Some(test) = line.strip_prefix("test ") {
        mutant.test = test.split_whitespace().map(str::to_owned).collect();
    } else if let Some(seconds) = line.strip_prefix("seconds ") {
        mutant.seconds = seconds.parse().map_err(|_| "`seconds` takes a number")?;
    } else {
        return Err("a line begins with mutant, about, file, test, seconds, - or +");
    }
    Ok(())
}

fn complete(mutant: &Mutant) -> Result<(), (usize, String)> {
    let missing = if mutant.about.is_empty() {
        "about"
    } else if mutant.test.is_empty() {
        "test"
    } else if mutant.seconds == 0 {
        "seconds"
    } else if mutant.edits.is_empty() || mutant.edits.iter().any(|e| e.find.is_empty()) {
        "file and the lines to replace"
    } else {
        return Ok(());
    };
    Err((mutant.line, format!("{} lacks: {missing}", mutant.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# words
mutant one
about does it wrong
file a/b.rs
-    sync()?;
-    ack();
+    ack();
test test -p a --lib
seconds 60
";

    #[test]
    fn a_list_is_read_and_an_edit_applied_where_it_fits_once() {
        let mutants = parse(LIST).unwrap();
        let [one] = &mutants[..] else {
            panic!("{mutants:?}");
        };
        assert_eq!((one.name.as_str(), one.seconds), ("one", 60));
        assert_eq!(one.test, ["test", "-p", "a", "--lib"]);
        let edit = &one.edits[0];
        let text = "fn f() {\n    sync()?;\n    ack();\n}\n";
        assert_eq!(edit.apply(text).unwrap(), "fn f() {\n    ack();\n}\n");
        assert!(
            edit.apply("fn f() {\n    ack();\n}\n")
                .unwrap_err()
                .contains("not in")
        );
        assert!(
            edit.apply(&text.repeat(2))
                .unwrap_err()
                .contains("more than once")
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_with_its_line() {
        for (find, replacement, line) in [
            ("about does it wrong\n", "", 2),
            ("seconds 60\n", "", 2),
            ("test test -p a --lib\n", "", 2),
            ("seconds 60", "seconds soon", 9),
            ("file a/b.rs\n", "", 4),
            ("seconds 60", "minutes 1", 9),
            ("mutant one\n", "", 2),
            (
                "-    ack();\n+    ack();\n",
                "+    ack();\n-    ack();\n",
                7,
            ),
        ] {
            let (told, _) = parse(&LIST.replace(find, replacement)).unwrap_err();
            assert_eq!(told, line, "{find}");
        }
        let (told, _) = parse(&format!("{LIST}mutant one\n")).unwrap_err();
        assert_eq!(told, 10);
    }
}
