//! Figures, and how they are shown.

use std::time::Duration;

use serde_json::json;

/// What was measured several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one, in the unit of the figure.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// Adds one, in milliseconds.
    pub(crate) fn push_ms(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one; of two, the larger.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> Option<(f64, f64)> {
        Some((*self.0.first()?, *self.0.last()?))
    }
}

/// One figure: its median, what it should stay below, and what it is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
    range: Option<(f64, f64)>,
    samples: usize,
    mark: Option<f64>,
    /// Whether the mark is the least, and not the most.
    at_least: bool,
    peer: Option<(&'static str, f64)>,
}

impl Figure {
    /// A figure that was measured once.
    pub(crate) fn once(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
        Figure {
            name: name.into(),
            unit,
            value,
            range: None,
            samples: 1,
            mark: None,
            at_least: false,
            peer: None,
        }
    }

    /// The median of samples.
    pub(crate) fn median(name: impl Into<String>, unit: &'static str, samples: &Samples) -> Figure {
        Figure {
            range: samples.range(),
            samples: samples.count(),
            ..Figure::once(name, unit, samples.median())
        }
    }

    /// What it should not exceed.
    pub(crate) fn mark(mut self, mark: Option<f64>) -> Figure {
        self.mark = mark;
        self
    }

    /// What it should reach.
    pub(crate) fn at_least(mut self, mark: f64) -> Figure {
        self.mark = Some(mark);
        self.at_least = true;
        self
    }

    /// What it is compared with, in the unit that `docs/benchmarks.md` says.
    pub(crate) fn peer(mut self, peer: &'static str, value: f64) -> Figure {
        self.peer = Some((peer, value));
        self
    }

    fn ok(&self) -> Option<bool> {
        self.mark.map(|mark| match self.at_least {
            true => self.value >= mark,
            false => self.value <= mark,
        })
    }

    fn object(&self) -> String {
        json!({
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "mark": self.mark,
            "ok": self.ok(),
            "peer": self.peer.map(|it| it.0),
            "peer_value": self.peer.map(|it| rounded(it.1)),
            "min": self.range.map(|it| rounded(it.0)),
            "max": self.range.map(|it| rounded(it.1)),
            "samples": self.samples,
        })
        .to_string()
    }

    fn row(&self) -> [String; 7] {
        let number = |value: f64| format!("{:.*}", if value < 10.0 { 2 } else { 1 }, value);
        [
            self.name.clone(),
            number(self.value),
            self.unit.to_owned(),
            self.mark
                .map(|it| format!("{} {it}", if self.at_least { "≥" } else { "≤" }))
                .unwrap_or_default(),
            match self.ok() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            }
            .to_owned(),
            self.range
                .map(|(min, max)| format!("{}–{} of {}", number(min), number(max), self.samples))
                .unwrap_or_default(),
            self.peer
                .map(|(name, value)| format!("{name}: {}", number(value)))
                .unwrap_or_default(),
        ]
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Where figures go as they are known.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty report: as JSON each figure is printed when it is known, else all at the end.
    pub(crate) fn new(json: bool) -> Report {
        Report {
            json,
            figures: Vec::new(),
        }
    }

    /// Says what is being done, to a person who waits.
    pub(crate) fn doing(&self, what: &str) {
        eprintln!("bench: {what}");
    }

    /// Takes a figure.
    pub(crate) fn add(&mut self, figure: Figure) {
        if self.json {
            println!("{}", figure.object());
        }
        self.figures.push(figure);
    }

    /// Prints the table, where it is wanted.
    pub(crate) fn finish(self) {
        if self.json {
            return;
        }
        let head = ["figure", "value", "unit", "mark", "", "range", "peer"].map(str::to_owned);
        let rows: Vec<[String; 7]> = std::iter::once(head)
            .chain(self.figures.iter().map(Figure::row))
            .collect();
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; 7] = std::array::from_fn(width);
        for row in &rows {
            let cells = row.iter().zip(widths).enumerate();
            let line: Vec<String> = cells
                .map(|(column, (cell, width))| match column {
                    1 => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                })
                .collect();
            println!("{}", line.join("  ").trim_end());
        }
    }
}
