//! What operators read: a session with every verb of `rollout` against a real controller, and the
//! errors that it meets.

use crate::rollouts::fleet_with;
use crate::support::device::{Device, Live, failed, serving, window};
use crate::support::version::MODEL;
use crate::support::{Fleet, soon};
use clap::Parser;
use sandpiper::cli::args::Command;
use sandpiper::cli::terminal::Terminal;

#[derive(Debug, Parser)]
#[command(name = "sandpiper")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

/// Runs a command line; gives what its reader sees. Instants are not told: they differ.
async fn said(fleet: &Fleet, line: &str) -> String {
    let words = std::iter::once("sandpiper").chain(line.split(' '));
    let command = Program::try_parse_from(words).unwrap().command;
    let context = fleet.data().join("admin.toml");
    let program = <Program as clap::CommandFactory>::command();
    let mut out = Vec::new();
    let running = sandpiper::cli::run(command, Some(&context), program, Terminal::NONE, &mut out);
    let ended = soon(line, running).await;
    let mut text = format!("$ sandpiper {line}\n{}", String::from_utf8(out).unwrap());
    if let Err(error) = ended {
        let code = error.exit_code() as u8;
        text += &format!("error: {} [{code}]\n", error.chain());
    }
    let instant = |word: &str| word.len() == 20 && word.starts_with("20") && word.ends_with('Z');
    let lines = text.lines().map(|line| match line.split(' ').next() {
        Some(word) if instant(word) => line.replacen(word, "(an instant)        ", 1),
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

async fn all(fleet: &Fleet, lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        text += &said(fleet, line).await;
    }
    text
}

/// The device takes the next assignment and serves it.
async fn serve(live: &mut Live, version: &str, sequence: u64) {
    let assignment = live.assignment().await;
    let found = &assignment.models[&MODEL.parse().unwrap()].version;
    assert_eq!(found.as_str(), version);
    live.observe(assignment.generation.0, vec![serving(version)])
        .await;
    live.report(vec![window(sequence, version, 3)]).await;
}

async fn started(versions: &[&str]) -> (Fleet, Device, Live) {
    let (fleet, device, live) = fleet_with(versions).await;
    fleet.connected("shed", true).await;
    (fleet, device, live)
}

#[tokio::test]
async fn a_session_with_every_verb() {
    let (fleet, _device, mut live) = started(&["v1", "v2"]).await;
    let begun = [
        "rollout plan watch --version v1 --bake 0s",
        "rollout start watch --version v1 --bake 0s",
        "rollout status watch",
        "rollout pause watch",
        "rollout status watch",
        "rollout resume watch",
    ];
    let mut text = all(&fleet, &begun).await;
    serve(&mut live, "v1", 1).await;
    fleet.rollout_is("watch-1", "promoted").await;
    let second = [
        "rollout status watch --watch",
        "rollout start watch --version v2 --bake 0s --max-disagreement 5",
        "rollout promote watch",
        "rollout abort watch",
    ];
    text += &all(&fleet, &second).await;
    let _ = live.assignment().await;
    serve(&mut live, "v1", 2).await;
    fleet.rollout_is("watch-2", "rolled-back").await;
    text += &all(&fleet, &["rollout status watch", "rollout retry watch"]).await;
    serve(&mut live, "v2", 3).await;
    let rest = ["rollout promote watch --full"];
    text += &all(&fleet, &rest).await;
    fleet.rollout_is("watch-3", "promoted").await;
    let end = [
        "rollout status watch-3",
        "rollout undo watch --to v1",
        "rollout diff watch",
        "rollout diff watch --with watch-1",
        "rollout history watch-2",
    ];
    text += &all(&fleet, &end).await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let (fleet, _device, mut live) = started(&["v1", "v2"]).await;
    let early = [
        "rollout status nothing",
        "rollout start nothing --version v1",
        "rollout start watch --version v9",
        "rollout start watch --version v1 --wave 50% --wave 20%",
        "rollout start watch --version v1 --policy /nowhere/policy.yaml",
        "rollout start watch --version v1 --bake 0s",
    ];
    let mut text = all(&fleet, &early).await;
    serve(&mut live, "v1", 1).await;
    fleet.rollout_is("watch-1", "promoted").await;
    let wrong_state = ["pause", "resume", "promote", "retry", "abort", "undo"];
    for verb in wrong_state {
        text += &said(&fleet, &format!("rollout {verb} watch")).await;
    }
    text += &all(
        &fleet,
        &["rollout diff watch", "rollout start watch --version v2"],
    )
    .await;
    let assignment = live.assignment().await;
    live.observe(assignment.generation.0, vec![failed("v2", Some("v1"))])
        .await;
    fleet.rollout_is("watch-2", "rolling-back").await;
    text += &all(
        &fleet,
        &["rollout pause watch", "rollout start watch --version v2"],
    )
    .await;
    insta::assert_snapshot!(text);
}
