//! Measurements that are examples of a crate, built with optimisation: they print samples, and the
//! marks are here.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use super::figure::{Figure, Report, Samples};

/// What is promised of a figure on two cores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    AtLeast(f64),
    AtMost(f64),
}

/// What is known of the figures of a measurement.
pub(crate) struct Known {
    /// What is promised of a figure.
    pub(crate) mark: fn(&str) -> Option<Mark>,
    /// Which figure is printed beside which, and under what name.
    pub(crate) peer: fn(&str) -> Option<(&'static str, &'static str)>,
    /// The medians so far. What is compared with may be printed last.
    pub(crate) medians: BTreeMap<String, f64>,
}

impl Known {
    /// Runs the measurement with these arguments, and reports its figures at its end.
    pub(crate) fn measure(
        &mut self,
        binary: &Path,
        arguments: &[&str],
        report: &mut Report,
    ) -> Result<(), String> {
        let what = arguments.join(" ");
        let mut child = Command::new(binary)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", binary.display()))?;
        let out = child.stdout.take().ok_or("the measurement has no output")?;
        let mut figures = Vec::new();
        for line in BufReader::new(out).lines() {
            let line = line.map_err(|error| format!("cannot read figures: {error}"))?;
            let (name, unit, samples) = parse(&line)?;
            self.medians.insert(name.clone(), samples.median());
            figures.push((name, unit, samples));
        }
        let status = child
            .wait()
            .map_err(|error| format!("cannot wait for {what}: {error}"))?;
        if !status.success() {
            return Err(format!("the measurement `{what}` failed: {status}"));
        }
        for (name, unit, samples) in figures {
            let mut figure = Figure::median(&name, unit, &samples);
            figure = match (self.mark)(&name) {
                Some(Mark::AtMost(mark)) => figure.mark(Some(mark)),
                Some(Mark::AtLeast(mark)) => figure.at_least(mark),
                None => figure,
            };
            if let Some((of, shown)) = (self.peer)(&name)
                && let Some(value) = self.medians.get(of)
            {
                figure = figure.peer(shown, *value);
            }
            report.add(figure);
        }
        Ok(())
    }
}

/// A line of the measurement: `figure NAME UNIT SAMPLE...`.
pub(crate) fn parse(line: &str) -> Result<(String, &'static str, Samples), String> {
    let wrong = || format!("this is not a figure: {line}");
    let mut words = line.split(' ');
    let (Some("figure"), Some(name), Some(unit)) = (words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let unit = match unit {
        "1/s" => "/s",
        "us" => "µs",
        "ms" => "ms",
        "KiB" => "KiB",
        "x" => "×",
        "turns" => "turns",
        _ => return Err(wrong()),
    };
    let mut samples = Samples::default();
    for word in words {
        samples.push(word.parse().map_err(|_| wrong())?);
    }
    Ok((name.to_owned(), unit, samples))
}
