//! `skep sandbox copy`.

mod ends;
mod progress;

use self::ends::{Route, Side};
use super::data;
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    signals::Signals,
    view::{
        format,
        paint::{LOOK, paint},
        text,
    },
};
use sandbox::{
    Carry, Task,
    archive::{
        self, Bounds, Progress, Reader, Writer,
        local::{LeftOut, MOST_NAMED, Where, name_of, pack, put},
    },
    carry::{self, Ends},
};
use server::standing::{self, Running, find};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

/// Copy files into a sandbox, or out of it
///
/// One of the two is `ID:PATH`, of a sandbox; a relative PATH begins at the top of its workspace. As
/// `cp -r` does: into a directory that is there, or else under the new name; files that are there are
/// replaced. Of `DIR/.` only what is in it is copied. Links are copied as links, and never followed below
/// what is named; of modes only that a file may be executed is kept.
///
/// `-` is a tar archive: on standard input for what is put into the directory ID:PATH, on standard
/// output for what comes out.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox copy try:target/report.html .\n  skep sandbox copy fixtures try:tests/\n  skep sandbox copy try:/home/agent/.cache/. cache\n  tar -c src | skep sandbox copy - try:/tmp/src\n  skep sandbox copy try:. - | tar -t\n  skep sandbox copy ./odd:name try:."
)]
pub(super) struct Args {
    /// What is copied
    #[arg(value_name = "SRC")]
    from: OsString,
    /// Where to
    #[arg(value_name = "DST")]
    to: OsString,
}

#[derive(serde::Serialize)]
struct Object {
    id: String,
    /// Files, directories and links.
    entries: u64,
    /// Bytes of files.
    bytes: u64,
    /// What was no file, directory or link: the first of them.
    left_out: Vec<Left>,
    left_out_count: u64,
}

#[derive(serde::Serialize)]
struct Left {
    path: String,
    what: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let route = Route::read(args.from, args.to, context)?;
    let held = find(&data(context)?, route.id()).map_err(server::Error::from)?;
    let id = held.record.id.to_string();
    let mut signals = Signals::listen()?;
    let progress = Progress::default();
    // Told to end, this hangs up, which kills what copies inside.
    let copied = signals.or(progress::show(
        context,
        &progress,
        copy(&held, route, progress.clone()),
    ));
    let left_out = copied.await??;
    if context.output.is_json() {
        let (entries, bytes) = (progress.entries(), progress.bytes());
        context
            .output
            .object(&object(id, entries, bytes, left_out))?;
    } else {
        context.output.aside(&notes(&left_out));
    }
    Ok(Exit::Done)
}

/// What is done with an archive on this side.
type Giving = Box<dyn FnOnce(&mut Writer<File>) -> Result<LeftOut, archive::Error> + Send>;
type Taking = Box<dyn FnOnce(&mut Reader<File>) -> Result<LeftOut, archive::Error> + Send>;

async fn copy(
    held: &standing::Held,
    route: Route,
    progress: Progress,
) -> Result<LeftOut, server::Error> {
    match route {
        Route::In { from, to, .. } => {
            let (task, work): (_, Giving) = match from {
                Side::Archive => (Task::Fill, Box::new(from_input)),
                Side::Path(path) => {
                    // What is only what a directory has goes into one, also where there is none yet.
                    let task = name_of(&path).map_or(Task::Fill, |_| Task::In);
                    (task, Box::new(move |to: &mut _| pack(&path, to)))
                }
            };
            let (mut running, ends) = begin(held, Carry::new(task, to)).await?;
            carry::send(ends, running.wait(), progress, work).await
        }
        Route::Out { from, to, .. } => {
            let name = name_of(Path::new(&from)).map(ToOwned::to_owned);
            let work: Taking = match to {
                Side::Archive => Box::new(move |from: &mut _| to_output(from, name.as_deref())),
                Side::Path(path) => {
                    Box::new(move |from: &mut _| to_path(from, &path, name.as_deref()))
                }
            };
            let (mut running, ends) = begin(held, Carry::new(Task::Out, from)).await?;
            let bounds = (Bounds::default(), progress);
            carry::receive(ends, running.wait(), bounds, work).await
        }
    }
}

async fn begin(held: &standing::Held, carry: Carry) -> Result<(Running, Ends), server::Error> {
    let mut running = held.carry(carry).await?;
    match running.take_ends() {
        Some(standing::Ends::Pipes {
            stdin,
            stdout,
            stderr,
        }) => Ok((
            running,
            Ends {
                stdin,
                stdout,
                stderr,
            },
        )),
        _ => Err(server::Error::Ended),
    }
}

/// Of what is asked for by its name nothing else is taken.
fn to_path(
    from: &mut Reader<File>,
    path: &Path,
    name: Option<&OsStr>,
) -> Result<LeftOut, archive::Error> {
    let place = name.map_or(Where::Inside, Where::Named);
    Ok(put(from, path, place)?.left_out)
}

/// Written anew: a program that reads the archive gets nothing of it that is not carried, or that was
/// not asked for.
fn to_output(from: &mut Reader<File>, name: Option<&OsStr>) -> Result<LeftOut, archive::Error> {
    let mut to = Writer::new(io::stdout().lock());
    let mut left_out = LeftOut::default();
    while let Some(entry) = from.next_entry()? {
        if let Some(name) = name {
            entry.is_of(name)?;
        }
        match entry.what {
            archive::What::Other(other) => left_out.add(&entry.path, other),
            _ => to.entry(&entry, from).map_err(output)?,
        }
    }
    let mut written = to.finish().map_err(output)?;
    written.flush().map_err(archive::Error::Stream)?;
    Ok(left_out)
}

/// That nobody reads the output is another end than that of what copies inside.
fn output(error: archive::Error) -> archive::Error {
    match error {
        archive::Error::Ended => archive::Error::Stream(io::ErrorKind::BrokenPipe.into()),
        other => other,
    }
}

fn from_input(to: &mut Writer<File>) -> Result<LeftOut, archive::Error> {
    let mut from = Reader::new(io::stdin().lock(), Bounds::default());
    let mut left_out = LeftOut::default();
    loop {
        let entry = from.next_entry().map_err(|error| match error {
            archive::Error::Ended => archive::Error::Malformed {
                what: "it stops before its end",
            },
            other => other,
        })?;
        let Some(entry) = entry else {
            return Ok(left_out);
        };
        match entry.what {
            archive::What::Other(other) => left_out.add(&entry.path, other),
            _ => to.entry(&entry, &mut from)?,
        }
    }
}

fn object(id: String, entries: u64, bytes: u64, left_out: LeftOut) -> Object {
    let named = left_out.named.into_iter().map(|(path, other)| Left {
        path: path.display().to_string(),
        what: match other {
            archive::Other::Device => "device",
            archive::Other::Pipe => "pipe",
            archive::Other::Socket => "socket",
        }
        .to_owned(),
    });
    Object {
        id,
        entries,
        bytes,
        left_out: named.collect(),
        left_out_count: left_out.count,
    }
}

fn notes(left_out: &LeftOut) -> String {
    let note = paint(LOOK, "note:");
    let mut lines: String = left_out
        .named
        .iter()
        .map(|(path, other)| {
            let path = text::line(&path.display().to_string());
            format!("{note} {path} is {other}, and was left out\n")
        })
        .collect();
    let more = left_out.count.saturating_sub(MOST_NAMED as u64);
    if let (Ok(more @ 1..), false) = (usize::try_from(more), lines.is_empty()) {
        let more = format::count(more, "more entry").replace("entrys", "entries");
        lines.push_str(&format!("{note} {more} like these\n"));
    }
    lines
}

/// Whether an archive on standard output would go to a person.
fn output_is_seen() -> bool {
    io::stdout().is_terminal()
}
