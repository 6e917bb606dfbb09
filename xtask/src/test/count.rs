//! How many tests a step ran, read from what it printed.

use std::fs;
use std::path::Path;

use super::report::{Outcome, Tally};

/// What a step counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    /// Itself: one check.
    Itself,
    /// Tests, in the words of Rust's test harness.
    Libtest,
    /// Tests, in the words of Vitest.
    Vitest,
}

impl Counted {
    /// Judges a step that has ended.
    pub(super) fn outcome(self, succeeded: bool, log: &Path) -> anyhow::Result<Outcome> {
        let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
        let tally = match self {
            Self::Itself => Tally { passed: u32::from(succeeded), ..Tally::default() },
            Self::Libtest => libtest(&text),
            Self::Vitest => vitest(&text),
        };
        Ok(if !succeeded {
            Outcome::Failed { tally, why: None, log: log.to_owned() }
        } else if tally.failed > 0 {
            let why = Some("it reports failures and yet success".to_owned());
            Outcome::Failed { tally, why, log: log.to_owned() }
        } else {
            Outcome::Ran(tally)
        })
    }
}

/// Sums the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn libtest(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            tally.passed += number_before(result, "passed");
            tally.failed += number_before(result, "failed");
            tally.left_out += number_before(result, "ignored");
        }
    }
    tally
}

/// A test that does not run unless it is asked for, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ignored {
    pub(super) name: String,
    pub(super) reason: String,
}

/// Reads the lines `test store::on_postgres ... ignored, needs PostgreSQL`.
pub(super) fn ignored(log: &Path) -> anyhow::Result<Vec<Ignored>> {
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    Ok(text.lines().filter_map(ignored_line).collect())
}

fn ignored_line(line: &str) -> Option<Ignored> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = verdict.strip_prefix("ignored")?.trim_start_matches(", ");
    Some(Ignored { name: name.to_owned(), reason: reason.to_owned() })
}

/// Reads the line `Tests  2 failed | 12 passed | 1 skipped (15)`.
fn vitest(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        if let Some(result) = without_colours(line).trim().strip_prefix("Tests ") {
            tally.passed += number_before(result, "passed");
            tally.failed += number_before(result, "failed");
            tally.skipped += number_before(result, "skipped") + number_before(result, "todo");
        }
    }
    tally
}

fn number_before(text: &str, word: &str) -> u32 {
    let words: Vec<_> = text.split(|letter: char| !letter.is_alphanumeric()).collect();
    let words: Vec<_> = words.into_iter().filter(|found| !found.is_empty()).collect();
    let pairs = words.windows(2);
    let number = |pair: &[&str]| match pair {
        [number, name] if *name == word => number.parse::<u32>().ok(),
        _ => None,
    };
    pairs.filter_map(number).sum()
}

/// Drops escape sequences of the form `ESC [ … letter`.
fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut in_sequence = false;
    for letter in line.chars() {
        match letter {
            '\u{1b}' => in_sequence = true,
            _ if in_sequence => in_sequence = !letter.is_ascii_alphabetic(),
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let tally = libtest(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s\n\
             noise: 9 passed\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );

        assert_eq!((tally.passed, tally.failed, tally.skipped, tally.left_out), (4, 2, 0, 1));
    }

    #[test]
    fn ignored_tests_are_read_with_their_reasons() {
        let ignored = ignored_line("test a::b ... ignored, needs PostgreSQL").unwrap();

        assert_eq!((ignored.name.as_str(), ignored.reason.as_str()), ("a::b", "needs PostgreSQL"));
        assert_eq!(ignored_line("test c ... ignored").unwrap().reason, "");
        assert_eq!(ignored_line("test d ... ok"), None);
    }

    #[test]
    fn coloured_results_are_read_too() {
        let line = "\u{1b}[2m      Tests \u{1b}[22m \u{1b}[1m\u{1b}[31m1 failed\u{1b}[39m | \u{1b}[32m12 passed\u{1b}[39m | 2 skipped (15)";
        let tally = vitest(line);

        assert_eq!((tally.passed, tally.failed, tally.skipped), (12, 1, 2));
    }
}
