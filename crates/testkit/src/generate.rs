//! Large repositories, quickly.

use std::io::{BufWriter, Write};
use std::process::Stdio;

use crate::Repo;

/// Writes one commit of `files` files to `main`, without a working tree.
pub(crate) fn import(repo: &Repo, files: usize) {
    let mut child = repo
        .command(&["fast-import", "--quiet", "--done"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is needed for this test: install git");
    let mut out = BufWriter::new(child.stdin.take().expect("its input"));
    write(&mut out, files).expect("git fast-import reads to the end");
    drop(out);
    let status = child.wait().expect("git fast-import ends");
    assert!(status.success(), "git fast-import: {status}");
}

fn write(out: &mut impl Write, files: usize) -> std::io::Result<()> {
    let message = format!("{files} files\n");
    writeln!(out, "commit refs/heads/main")?;
    writeln!(
        out,
        "committer Ada Example <ada@example.org> 1700000000 +0000"
    )?;
    write!(out, "data {}\n{message}", message.len())?;
    for n in 0..files {
        let contents = contents(n);
        writeln!(out, "M 100644 inline {}", path(n))?;
        write!(out, "data {}\n{contents}\n", contents.len())?;
    }
    writeln!(out, "done")
}

/// The path of the n-th file: 100 files to a directory, 100 directories to the one above.
fn path(n: usize) -> String {
    format!(
        "src/part{:03}/unit{:02}/file{:02}.txt",
        n / 10_000,
        n / 100 % 100,
        n % 100
    )
}

/// The content of the n-th file: some 400 bytes, unlike every other's.
fn contents(n: usize) -> String {
    let mut state = n as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut text = format!("file {n}\n");
    for line in 0..8 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("line {line}: {state:016x} of the file {n}\n"));
    }
    text
}
