//! What a runner says on standard error goes into the agent's log, within bounds: a runner that
//! talks without end must fill neither the log nor a pipe.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Lines of one runner that are logged; the first ones tell why.
const MAX_LINES: usize = 50;
/// Longest line logged, in bytes; the rest of it is dropped.
const MAX_LINE_BYTES: usize = 500;

/// Collects lines within the bounds.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    logged: usize,
    dropped_bytes: u64,
}

impl Lines {
    /// Takes bytes; calls `log` with every line that is complete and within the bounds.
    fn take(&mut self, bytes: &[u8], log: &mut impl FnMut(&str)) {
        for &byte in bytes {
            if self.logged >= MAX_LINES {
                self.dropped_bytes += 1;
            } else if byte == b'\n' {
                self.finish_line(log);
            } else if self.line.len() < MAX_LINE_BYTES {
                self.line.push(byte);
            } else {
                self.dropped_bytes += 1;
            }
        }
    }

    fn finish_line(&mut self, log: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            log(&String::from_utf8_lossy(&self.line));
            self.logged += 1;
            self.line.clear();
        }
    }
}

/// Reads until the end; logs what is within the bounds and how much was not.
pub(super) async fn log(name: String, mut stderr: impl AsyncRead + Unpin) {
    let mut lines = Lines::default();
    let mut buffer = [0; 1024];
    let mut log = |line: &str| tracing::warn!(runner = %name, "{line}");
    // An error reading the pipe is its end.
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        lines.take(&buffer[..count], &mut log);
    }
    lines.finish_line(&mut log);
    if lines.dropped_bytes > 0 {
        tracing::warn!(runner = %name, bytes = lines.dropped_bytes, "more output was dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_number_are_bounded() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        let long = format!("{}\n", "x".repeat(10 * MAX_LINE_BYTES));
        for _ in 0..2 * MAX_LINES {
            lines.take(long.as_bytes(), &mut |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen.len(), MAX_LINES);
        assert!(seen.iter().all(|line| line.len() == MAX_LINE_BYTES));
        assert!(lines.dropped_bytes > 0);
    }

    #[test]
    fn lines_split_over_reads_are_joined() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for part in ["one\ntw", "o\n\nthr", "ee"] {
            lines.take(part.as_bytes(), &mut |line| seen.push(line.to_owned()));
        }
        lines.finish_line(&mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "three"]);
    }
}
