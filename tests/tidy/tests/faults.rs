//! The list of faults names tests that exist.
#![allow(clippy::unwrap_used)]

use sandpiper_tidy::sources;

/// Faults of the list.
const FAULTS: usize = 45;

#[test]
fn every_test_that_the_list_of_faults_names_exists() {
    let path = sandpiper_tidy::root().join("docs/faults.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rust = sources(&[".rs"]).unwrap();
    let is_test = |name: &str| {
        let head = format!("fn {name}(");
        rust.iter()
            .any(|s| s.code().any(|(_, line)| line.contains(&head)))
    };
    let rows = text.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix("| ")?.split_once(". ")?;
        Some((number.parse::<usize>().ok()?, rest))
    });
    let mut seen = Vec::new();
    let mut wrong = Vec::new();
    for (number, row) in rows {
        seen.push(number);
        let tests = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let mut names = tests.split('`').skip(1).step_by(2).peekable();
        if names.peek().is_none() && tests != "open" {
            wrong.push(format!("{number}: neither a test nor `open`: {tests}"));
        }
        let missing = names.filter(|name| !is_test(name));
        wrong.extend(missing.map(|name| format!("{number}: there is no test {name}")));
    }
    assert_eq!(
        seen,
        (1..=FAULTS).collect::<Vec<_>>(),
        "every fault, in order"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
