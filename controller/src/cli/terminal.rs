//! What standard output is: a terminal that can be drawn on again, or a file or pipe that lines are
//! added to.

use std::io::IsTerminal;

/// How a result may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Columns and rows, on a terminal.
    pub size: Option<(usize, usize)>,
    /// Whether colours are wanted: never but on a terminal.
    pub colours: bool,
}

impl Terminal {
    /// No terminal: plain lines, one after the other.
    pub const NONE: Self = Self {
        size: None,
        colours: false,
    };

    /// What standard output is. `NO_COLOR` (<https://no-color.org>) and a dumb terminal have no
    /// colours; what cannot move its cursor is no terminal to us.
    pub fn of_stdout() -> Self {
        let out = std::io::stdout();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !out.is_terminal() {
            return Self::NONE;
        }
        let size = rustix::termios::tcgetwinsize(&out).ok();
        let size = size.map(|s| (usize::from(s.ws_col), usize::from(s.ws_row)));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            // A terminal that does not tell its size, such as a serial line, has the usual one.
            size: Some(size.filter(|(c, r)| *c > 0 && *r > 0).unwrap_or((80, 24))),
            colours: !no_colour,
        }
    }
}
