//! What goes on, as it is shown: objects, lines, or lines that are drawn again and again.

use crate::{
    output::Output,
    report::Error,
    view::{
        event, format, live,
        paint::{LOOK, paint},
        screen::{self, Screen},
        story::Story,
        text,
    },
};
use anstream::{AutoStream, ColorChoice};
use domain::{RequestId, event::Envelope};
use std::io;

/// How what goes on is shown.
enum Mode {
    /// An object for each event, on standard output.
    Json,
    /// A line for each change of state.
    Plain,
    /// Lines that are drawn again and again.
    Drawn(Screen),
    /// Not at all.
    Muted,
}

/// What goes on with the requests that are worked on.
pub(super) struct View {
    output: Output,
    /// The requests that have not ended, in the order in which they were named.
    stories: Vec<(RequestId, Story)>,
    /// Whether there were several, so that each line says of which it is.
    several: bool,
    mode: Mode,
}

impl View {
    pub(super) fn new(output: Output) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let mode = if output.is_json() {
            Mode::Json
        } else if output.progress_is_seen() && !dumb {
            Mode::Drawn(Screen::default())
        } else {
            Mode::Plain
        };
        Self {
            output,
            stories: Vec::new(),
            several: false,
            mode,
        }
    }

    /// Shows this request too from now on.
    pub(super) fn add(&mut self, request: RequestId) {
        self.stories.push((request, Story::new(request)));
        self.several |= self.stories.len() > 1;
    }

    /// What happened to a request, which is not shown any more.
    pub(super) fn remove(&mut self, request: RequestId) -> Story {
        let found = self.stories.iter().position(|(id, _)| *id == request);
        found.map_or_else(|| Story::new(request), |index| self.stories.remove(index).1)
    }

    /// Whether an agent has begun to work.
    pub(super) fn has_begun(&self) -> bool {
        let mut jobs = self.stories.iter().flat_map(|(_, story)| &story.jobs);
        jobs.any(|job| job.attempt().is_some() && !job.action.is_empty())
    }

    pub(super) const fn is_drawn(&self) -> bool {
        matches!(self.mode, Mode::Drawn(_))
    }

    pub(super) fn mute(&mut self) {
        self.mode = Mode::Muted;
    }

    pub(super) fn take(&mut self, event: &Envelope) -> Result<(), Error> {
        let mut stories = self.stories.iter_mut();
        let Some((request, story)) = stories.find(|(id, _)| event.request == Some(*id)) else {
            return Ok(());
        };
        let seen = story.notes.len();
        story.apply(event);
        let named = |line: &str| {
            if self.several {
                format!("{request}  {line}")
            } else {
                line.to_owned()
            }
        };
        match &self.mode {
            Mode::Json => self.output.object(event)?,
            Mode::Plain => {
                if let Some(line) = event::progress(event, story) {
                    let at = format::span(event.time.since(story.started));
                    self.output.aside(&format!("{at:>7}  {}\n", named(&line)));
                }
            }
            Mode::Drawn(_) => {
                let new = story.notes.iter().skip(seen);
                let new: Vec<String> = new.map(|note| noted(&named(note))).collect();
                // Everything else waits for the clock: many events come at once.
                if !new.is_empty() {
                    self.draw(&new);
                }
            }
            Mode::Muted => {}
        }
        Ok(())
    }

    /// Says something that is no event. Programs do not need it.
    pub(super) fn note(&mut self, words: &str) {
        match self.mode {
            Mode::Json | Mode::Muted => {}
            Mode::Plain => self.output.aside(&format!("{}\n", noted(words))),
            Mode::Drawn(_) => self.draw(&[noted(words)]),
        }
    }

    pub(super) fn draw(&mut self, above: &[String]) {
        let Mode::Drawn(screen) = &mut self.mode else {
            return;
        };
        let (width, height) = screen::size(io::stderr());
        let now = format::now();
        // The last column stays empty: some terminals wrap as soon as it is filled.
        let width_of_lines = width.saturating_sub(1);
        let lines = match self.stories.as_slice() {
            [(_, story)] if !self.several => live::lines(story, now, width_of_lines, height),
            several => live::several(several, now, width_of_lines, height),
        };
        let colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        let frame = screen.frame(&styled(above, colour), &styled(&lines, colour), width);
        // A terminal that is gone is told of by a signal.
        drop(screen::put(io::stderr().lock(), &frame));
    }

    /// Takes away what is drawn.
    pub(super) fn clear(&mut self) {
        if let Mode::Drawn(screen) = &mut self.mode {
            let (width, _) = screen::size(io::stderr());
            drop(screen::put(io::stderr().lock(), &screen.rewind(width)));
        }
    }
}

fn noted(words: &str) -> String {
    words
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let line = text::lines(line);
            if index == 0 {
                format!("{} {line}", paint(LOOK, "note:"))
            } else {
                line
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn styled(lines: &[String], colour: bool) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            if colour {
                line.clone()
            } else {
                anstream::adapter::strip_str(line).to_string()
            }
        })
        .collect()
}
