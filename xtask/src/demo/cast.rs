//! A recorded session, as a file that `asciinema play` shows and as text.

use super::terminal::{COLUMNS, Drawn, ROWS};
use anyhow::Result;
use serde_json::json;
use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::time::Duration;

/// Between two keys of the person who types.
const KEY: Duration = Duration::from_millis(35);
/// Between the end of a command and the next one.
const PAUSE: Duration = Duration::from_millis(1500);
/// The prompt.
const PROMPT: &str = "\x1b[1m$\x1b[0m ";
/// Rows that the text of one command may have.
const TALL: NonZeroU16 = NonZeroU16::new(400).unwrap();

/// What was typed and drawn so far.
#[derive(Debug, Default)]
pub(crate) struct Cast {
    now: Duration,
    events: Vec<(Duration, String)>,
    text: String,
}

impl Cast {
    fn draw(&mut self, text: String) {
        self.events.push((self.now, text));
    }

    /// A line of the narrator, as a comment of the shell.
    pub(crate) fn say(&mut self, what: &str) {
        self.draw(format!("{PROMPT}\x1b[2m# {what}\x1b[0m\r\n"));
        self.now += PAUSE;
        let _ = writeln!(self.text, "{what}\n");
    }

    /// A command that was typed, and what came of it.
    pub(crate) fn command(&mut self, line: &str, drawn: &Drawn) {
        self.draw(PROMPT.to_owned());
        for key in line.chars() {
            self.now += KEY;
            // Lines that were broken for reading are typed so.
            let key = if key == '\n' {
                "\r\n".to_owned()
            } else {
                key.to_string()
            };
            self.draw(key);
        }
        self.now += KEY;
        self.draw("\r\n".to_owned());
        let start = self.now;
        let mut whole = Vec::new();
        let mut pending = Vec::new();
        for (when, bytes) in &drawn.parts {
            whole.extend_from_slice(bytes);
            pending.extend_from_slice(bytes);
            // A character may be cut in two between parts.
            let complete = match std::str::from_utf8(&pending) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let rest = pending.split_off(complete);
            let part = std::mem::replace(&mut pending, rest);
            self.now = start + *when;
            self.draw(String::from_utf8_lossy(&part).into_owned());
        }
        self.now = start + drawn.took + PAUSE;
        let _ = writeln!(self.text, "```console\n$ {line}\n{}```\n", screen(&whole));
    }

    /// The recording, in version 2 of asciinema's format: a header, and a line for each event.
    ///
    /// # Errors
    /// None that is expected: text can always be written as JSON.
    pub(crate) fn recording(&self, title: &str) -> Result<String> {
        let header = json!({
            "version": 2, "width": COLUMNS, "height": ROWS, "title": title,
            "idle_time_limit": 2.0, "env": { "TERM": "xterm-256color" },
        });
        let mut all = serde_json::to_string(&header)? + "\n";
        for (when, text) in &self.events {
            let millis = when.as_millis() as f64 / 1e3;
            all += &(serde_json::to_string(&json!([millis, "o", text]))? + "\n");
        }
        Ok(all)
    }

    /// The same as text: of a picture that was drawn again and again the last one.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// What stands on a terminal after these bytes.
fn screen(bytes: &[u8]) -> String {
    let columns = NonZeroU16::new(COLUMNS).unwrap_or(TALL);
    let mut parser = vt100::Parser::new(TALL, columns, 0);
    parser.process(bytes);
    let rows: Vec<String> = parser.screen().rows(0, COLUMNS).collect();
    let text = rows
        .iter()
        .map(|row| row.trim_end())
        .collect::<Vec<_>>()
        .join("\n");
    match text.trim_end() {
        "" => String::new(),
        text => format!("{text}\n"),
    }
}
