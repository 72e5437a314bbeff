//! What the sources may hold: a scan of their text. Every rule states its reason.
#![allow(clippy::unwrap_used)]

use sandpiper_tidy::{Source, sources};

/// Longest file, in lines. A longer one has more than one reason to change.
const MAX_LINES: usize = 600;

/// Text that code in a place may not hold.
struct Ban {
    /// Where: a prefix of the path.
    place: &'static str,
    /// But not in these.
    except: &'static [&'static str],
    /// What.
    words: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        place: "crates/core/src/",
        except: &[],
        words: &[
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "std::thread",
        ],
        reason: "the core decides, it does not act",
    },
    Ban {
        place: "crates/core/src/",
        except: &[],
        words: &["Instant", "SystemTime"],
        reason: "time is an argument, so that a test can turn the clock",
    },
    Ban {
        place: "crates/core/src/",
        except: &[],
        words: &["HashMap", "HashSet"],
        reason: "their order differs from run to run",
    },
    Ban {
        place: "tests/sim/src/",
        except: &[
            "tests/sim/src/main.rs",
            "tests/sim/src/batch.rs",
            "tests/sim/src/hunt.rs",
            "tests/sim/src/planning.rs",
        ],
        words: &[
            "HashMap",
            "HashSet",
            "Instant",
            "SystemTime",
            "std::fs",
            "std::net",
        ],
        reason: "one seed must give the same run bit for bit; only programs look at a clock",
    },
    Ban {
        place: "crates/compiler/src/",
        except: &[],
        words: &["HashMap", "HashSet", "SystemTime"],
        reason: "the same model must give the same bytes",
    },
    Ban {
        place: "controller/src/",
        except: &["controller/src/store/"],
        words: &["sled::"],
        reason: "the store is behind a trait, so that another can take its place",
    },
    Ban {
        place: "controller/src/",
        // `serve` only binds the generated servers to their listeners; it sees no message.
        except: &[
            "controller/src/api/",
            "controller/src/cli/",
            "controller/src/serve.rs",
        ],
        words: &["sandpiper_proto::v1"],
        reason: "protobuf stops at the edge: the server's in `api`, the client's in `cli`",
    },
    Ban {
        place: "",
        // The benchmark runs another engine in wasm, without what our sandbox would forbid it.
        except: &[
            "crates/sandbox/",
            "crates/compiler/tests/",
            "tests/tidy/",
            "xtask/src/peer/guest.rs",
        ],
        words: &["wasmtime::"],
        reason: "wasmtime stays behind the one door of sandpiper-sandbox",
    },
];

fn rust() -> Vec<Source> {
    sources(&[".rs"]).unwrap()
}

/// Whether `word` stands in `line` and is not part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && (!after || word.ends_with(':'))
    })
}

#[test]
fn no_place_names_what_it_may_not() {
    let mut broken = Vec::new();
    for source in rust() {
        let of_place = |b: &&Ban| {
            source.path.starts_with(b.place) && !b.except.iter().any(|e| source.path.starts_with(e))
        };
        for ban in BANS.iter().filter(of_place) {
            for (number, line) in source.code() {
                for word in ban.words.iter().filter(|w| names(line, w)) {
                    broken.push(format!(
                        "{}:{number}: `{word}`: {}",
                        source.path, ban.reason
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_are_short() {
    let long: Vec<_> = rust()
        .iter()
        .map(|s| (s.path.clone(), s.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    let macros = [["to", "do!"].concat(), ["unimple", "mented!"].concat()];
    let mut found = Vec::new();
    for source in rust() {
        for (index, line) in source.text.lines().enumerate() {
            let marked = marks.iter().any(|m| names(line, m));
            if marked || macros.iter().any(|m| line.contains(m.as_str())) {
                found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn texts_end_with_one_newline_and_have_no_trailing_blanks() {
    let mut broken = Vec::new();
    for source in sources(&[".rs", ".md", ".toml", ".proto", ".yaml"]).unwrap() {
        let text = &source.text;
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            broken.push(format!("{}: its end", source.path));
        }
        for (index, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t']) {
                broken.push(format!("{}:{}: blanks at the end", source.path, index + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A link that leads nowhere is worse than none.
#[test]
fn links_between_our_documents_lead_somewhere() {
    let root = sandpiper_tidy::root();
    let mut dead = Vec::new();
    for source in sources(&[".md"]).unwrap() {
        let dir = root.join(&source.path);
        let dir = dir.parent().unwrap();
        for piece in source.text.split("](").skip(1) {
            let link = piece.split([')', '#']).next().unwrap_or_default();
            let outside = link.contains("://") || link.is_empty();
            if !outside && !dir.join(link).exists() {
                dead.push(format!("{}: {link}", source.path));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}
