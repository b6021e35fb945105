//! The tool `edit`. The file is read and written by commands inside the sandbox: the trusted
//! side follows no path of an agent. Only the search for the text happens here, on bytes.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::output::clean;
use super::tools::{not_done, text_argument};
use crate::agent::{Context, Error, Task, ToolOutput};
use crate::exec::{Output, Request};

/// The largest file that is edited or written, in bytes.
const MAX_FILE: usize = 8 << 20;

/// Reads the file `$1`. Exits with 3 where there is none, with 4 where it is no file.
const READ: &str = "p=$1
[ -e \"$p\" ] || [ -L \"$p\" ] || exit 3
[ -f \"$p\" ] || exit 4
exec cat \"$p\"";

/// Writes its input, `$2` bytes, to the file `$1`, which has either the old or the new content
/// whatever happens: the new one is complete before it takes the place. A link is followed; mode
/// bits are kept. Exits with 4 where the path is no file, with 5 where the input is incomplete.
const WRITE: &str = "p=$1
if [ -L \"$p\" ]; then p=$(readlink -f \"$p\") || exit 1; fi
if [ -e \"$p\" ] && [ ! -f \"$p\" ]; then exit 4; fi
d=${p%/*}
[ -n \"$d\" ] || d=/
mkdir -p \"$d\" || exit 1
t=$d/.skep-edit-$$
trap 'rm -f \"$t\"' EXIT
if [ -e \"$p\" ]; then cp -p \"$p\" \"$t\" || exit 1; fi
cat > \"$t\" || exit 1
[ $(($(wc -c < \"$t\"))) -eq \"$2\" ] || exit 5
mv -f \"$t\" \"$p\" || exit 1
trap - EXIT";

/// What the model wants of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    path: String,
    change: Change,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// The whole file.
    Write(String),
    /// One piece of it.
    Replace { old: String, new: String },
}

impl Edit {
    pub(super) fn parse(arguments: &Map<String, Value>) -> Result<Self, String> {
        let text = |name| text_argument(arguments, "edit", name);
        let path = text("path")?
            .filter(|path| !path.is_empty() && path.len() <= 4000 && !path.contains('\0'))
            .ok_or("`edit` needs `path`. Nothing was done.")?;
        let change = match (text("content")?, text("old")?, text("new")?) {
            (Some(content), None, None) => Change::Write(content),
            (None, Some(old), Some(new)) => Change::Replace { old, new },
            // Some models fill in every field.
            (Some(content), Some(old), Some(new)) if old.is_empty() && new.is_empty() => {
                Change::Write(content)
            }
            (Some(empty), Some(old), Some(new)) if empty.is_empty() && !old.is_empty() => {
                Change::Replace { old, new }
            }
            (Some(_), ..) => {
                return Err(
                    "`edit` takes either `content`, or `old` and `new`. Nothing was done.".into(),
                );
            }
            (None, ..) => {
                return Err("`edit` needs `old` and `new`, or `content`. Nothing was done.".into());
            }
        };
        Ok(Self { path, change })
    }

    pub(super) async fn run(
        &self,
        task: &Task,
        context: &Context<'_>,
    ) -> Result<ToolOutput, Error> {
        match &self.change {
            Change::Write(content) => self.write(content.as_bytes(), "Wrote", task, context).await,
            Change::Replace { old, new } => {
                let file = self
                    .run_script(READ, &[], Vec::new(), task, context)
                    .await?;
                let bytes = match (file.exit.code, file.stdout.whole()) {
                    (Some(0), Some(bytes)) => bytes,
                    (Some(0), None) => return Ok(not_done(self.too_large())),
                    (Some(3), _) if old.is_empty() => Vec::new(),
                    _ => return Ok(not_done(self.explain(&file, "read"))),
                };
                match replace(&bytes, old, new) {
                    Ok((bytes, line)) => {
                        let done = format!("Replaced the text at line {line} of");
                        self.write(&bytes, &done, task, context).await
                    }
                    Err(why) => Ok(not_done(format!("{} was not changed: {why}", self.path))),
                }
            }
        }
    }

    async fn write(
        &self,
        bytes: &[u8],
        done: &str,
        task: &Task,
        context: &Context<'_>,
    ) -> Result<ToolOutput, Error> {
        if bytes.len() > MAX_FILE {
            return Ok(not_done(self.too_large()));
        }
        let size = bytes.len().to_string();
        let output = self
            .run_script(WRITE, &[&size], bytes.to_vec(), task, context)
            .await?;
        if !output.exit.success() {
            return Ok(not_done(self.explain(&output, "written")));
        }
        Ok(ToolOutput {
            text: format!("{done} {}.", self.path),
            ok: true,
            exit: None,
            omitted: 0,
        })
    }

    async fn run_script(
        &self,
        script: &str,
        more: &[&str],
        stdin: Vec<u8>,
        task: &Task,
        context: &Context<'_>,
    ) -> Result<Output, Error> {
        // Never a name that a command could take for an option, and always one with a slash.
        let path = task.workspace.join(&self.path).into_os_string();
        let mut argv: Vec<OsString> = ["/bin/sh", "-c", script, "sh"].map(OsString::from).into();
        argv.push(path);
        argv.extend(more.iter().map(OsString::from));
        let request = Request {
            argv,
            env: context.env.clone(),
            cwd: task.workspace.clone(),
            stdin,
            timeout: task.limits.command,
            max_output: MAX_FILE,
        };
        Ok(context.exec.exec(request).await?)
    }

    fn too_large(&self) -> String {
        format!(
            "{} was not changed: it is larger than {MAX_FILE} bytes.",
            self.path
        )
    }

    /// What went wrong in a script, in words for the model.
    fn explain(&self, output: &Output, verb: &str) -> String {
        let path = &self.path;
        match output.exit.code {
            Some(3) => format!(
                "There is no file {path}. Nothing was done. To make it, call `edit` with `content`."
            ),
            Some(4) => format!("{path} is no regular file. Nothing was done."),
            Some(5) => format!("{path} was not changed: the write was interrupted."),
            _ => {
                let said = clean(&output.stderr.head);
                let said: String = said.trim().chars().take(500).collect();
                let said = if said.is_empty() {
                    output.exit.to_string()
                } else {
                    said
                };
                format!("{path} could not be {verb}: {said}")
            }
        }
    }
}

/// The bytes with `old` replaced by `new`, and the line where it was; or why that cannot be, in
/// words for the model.
fn replace(bytes: &[u8], old: &str, new: &str) -> Result<(Vec<u8>, usize), String> {
    if old.is_empty() {
        return if bytes.is_empty() {
            Ok((new.as_bytes().to_vec(), 1))
        } else {
            Err(
                "`old` is empty, and the file is not. To write the whole file, use `content`."
                    .into(),
            )
        };
    }
    if old == new {
        return Err("`old` and `new` are the same.".into());
    }
    let mut found = places(bytes, old.as_bytes());
    let (mut old, mut new) = (old.to_owned(), new.to_owned());
    if found.is_empty() && !old.contains('\r') && bytes.windows(2).any(|w| w == b"\r\n") {
        // The file has the line ends of Windows, and models write the others.
        let with_cr = old.replace('\n', "\r\n");
        found = places(bytes, with_cr.as_bytes());
        if !found.is_empty() {
            (old, new) = (with_cr, new.replace("\r\n", "\n").replace('\n', "\r\n"));
        }
    }
    match found.as_slice() {
        [] => Err(not_found(bytes, &old)),
        [at] => {
            let (head, rest) = bytes.split_at_checked(*at).unwrap_or((bytes, &[]));
            let tail = rest.get(old.len()..).unwrap_or_default();
            Ok(([head, new.as_bytes(), tail].concat(), line_of(bytes, *at)))
        }
        many => {
            let lines: Vec<String> = many
                .iter()
                .take(5)
                .map(|at| line_of(bytes, *at).to_string())
                .collect();
            let more = if many.len() > 5 { ", …" } else { "" };
            let count = if many.len() == MANY {
                format!("at least {MANY}")
            } else {
                many.len().to_string()
            };
            Err(format!(
                "`old` was found {count} times, at lines {}{more}. Give more of the lines around \
the one that you mean.",
                lines.join(", ")
            ))
        }
    }
}

/// More places than this are not counted.
const MANY: usize = 100;

/// Where `needle` begins in `bytes`, without overlaps, at most [`MANY`] times.
fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = bytes.get(from..).and_then(|rest| find(rest, needle)) {
        found.push(from + at);
        from += at + needle.len();
        if found.len() == MANY {
            break;
        }
    }
    found
}

/// The first place of `needle`, which is not empty. Looks for its first byte quickly, and
/// compares the rest there.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|b| b == first) {
        let start = from + at;
        if bytes.get(start + 1..)?.starts_with(rest) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|b| **b == b'\n').count()
}

/// Says where the text that was meant may be.
fn not_found(bytes: &[u8], old: &str) -> String {
    let first = old.lines().map(str::trim).find(|line| !line.is_empty());
    let near = first.and_then(|line| {
        let lines: Vec<usize> = bytes
            .split(|b| *b == b'\n')
            .enumerate()
            .filter(|(_, own)| own.trim_ascii() == line.as_bytes())
            .map(|(n, _)| n + 1)
            .take(3)
            .collect();
        (!lines.is_empty()).then(|| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            format!(
                " Its first line is like line {}: compare the indentation and the lines that \
follow.",
                lines.join(", ")
            )
        })
    });
    let hint = near.unwrap_or_else(|| " Look at the file again before you edit it.".to_owned());
    format!("`old` was not found in it.{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_replaced_and_everything_else_stays_byte_for_byte() {
        let bytes = b"a\xff\nb = 1\n\x00c\n";
        let (changed, line) = replace(bytes, "b = 1", "b = 2\nb2").unwrap();
        assert_eq!(changed, b"a\xff\nb = 2\nb2\n\x00c\n");
        assert_eq!(line, 2);
    }

    #[test]
    fn text_that_is_not_there_once_is_refused_with_a_hint() {
        let text = b"if x:\n    go()\nelse:\n    go()\n";
        let error = replace(text, "go()", "stop()").unwrap_err();
        assert!(error.contains("found 2 times, at lines 2, 4"), "{error}");
        let error = replace(text, "  go()\n  stop()", "y").unwrap_err();
        assert!(error.contains("first line is like line 2, 4"), "{error}");
        let error = replace(text, "nothing like it", "y").unwrap_err();
        assert!(error.contains("Look at the file again"), "{error}");
        assert!(
            replace(text, "else", "else")
                .unwrap_err()
                .contains("the same")
        );
        assert!(replace(text, "", "x").unwrap_err().contains("`content`"));
        let error = replace(&b"ab".repeat(500), "ab", "x").unwrap_err();
        assert!(error.contains("at least 100 times"), "{error}");
    }

    #[test]
    fn line_ends_of_windows_are_kept() {
        let (changed, line) = replace(b"one\r\ntwo\r\nthree\r\n", "two\nthree", "2\n3\n").unwrap();
        assert_eq!(changed, b"one\r\n2\r\n3\r\n\r\n");
        assert_eq!(line, 2);
    }

    #[test]
    fn an_empty_file_can_be_filled() {
        assert_eq!(replace(b"", "", "x").unwrap(), (b"x".to_vec(), 1));
    }

    #[test]
    fn a_call_must_say_one_thing() {
        let parse = |value: Value| Edit::parse(value.as_object().unwrap());
        use serde_json::json;
        assert!(parse(json!({"path": "a", "content": ""})).is_ok());
        assert!(parse(json!({"path": "a", "old": "x", "new": ""})).is_ok());
        for wrong in [
            json!({"content": "x"}),
            json!({"path": ""}),
            json!({"path": "a"}),
            json!({"path": "a\u{0}", "content": "x"}),
            json!({"path": "a", "old": "x"}),
            json!({"path": "a", "old": "x", "new": "y", "content": "z"}),
            json!({"path": 7, "content": "x"}),
            json!({"path": "a", "content": ["x"]}),
        ] {
            let error = parse(wrong.clone()).unwrap_err();
            assert!(error.contains("Nothing was done"), "{wrong}: {error}");
        }
    }
}
