//! Plans, as the owner writes them and as the inside reads them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::plan_inside::{Layers, Step};
use super::read::{Reader, Text};
use super::wire;
use crate::namespace::plan::Plan;

/// A step, whoever speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What it is.
    pub code: u32,
    /// Its paths and other texts, in order.
    pub texts: Vec<Vec<u8>>,
    /// Its numbers, in order.
    pub numbers: Vec<u64>,
}

/// The steps that process 1 reads; none where it refuses one.
#[must_use]
pub fn plan(bytes: &[u8]) -> Option<Vec<Said>> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while !reader.is_at_end() {
        all.push(said(&Step::read(&mut reader).ok()?));
    }
    Some(all)
}

/// The layers that the helper reads for a switch; none where it refuses them.
#[must_use]
pub fn layers(bytes: &[u8]) -> Option<Said> {
    let layers = Layers::read(&mut Reader::new(bytes)).ok()?;
    Some(said(&Step::Overlay(layers)))
}

fn said(step: &Step<'_>) -> Said {
    let said = |code, texts: &[Text<'_>], numbers: &[u64]| Said {
        code,
        texts: texts.iter().map(|it| it.bytes().to_vec()).collect(),
        numbers: numbers.to_vec(),
    };
    match *step {
        Step::Directory { path, mode } => said(wire::STEP_DIRECTORY, &[path], &[mode.into()]),
        Step::Symlink { target, path } => said(wire::STEP_SYMLINK, &[target, path], &[]),
        Step::File {
            path,
            mode,
            content,
        } => said(wire::STEP_FILE, &[path, content], &[mode.into()]),
        Step::Tmpfs {
            path,
            options,
            flags,
        } => said(wire::STEP_TMPFS, &[path, options], &[flags.into()]),
        Step::Bind {
            source,
            target,
            attributes,
            optional,
        } => {
            let numbers = [attributes.into(), optional.into()];
            said(wire::STEP_BIND, &[source, target], &numbers)
        }
        Step::Unswapped(path) => said(wire::STEP_UNSWAPPED, &[path], &[]),
        Step::Proc(path) => said(wire::STEP_PROC, &[path], &[]),
        Step::Devpts(path) => said(wire::STEP_DEVPTS, &[path], &[]),
        Step::Mask(path) => said(wire::STEP_MASK, &[path], &[]),
        Step::Overlay(layers) => {
            let mut texts = vec![layers.target, layers.upper, layers.work];
            texts.extend(layers.lowers);
            said(wire::STEP_OVERLAY, &texts, &[layers.volatile.into()])
        }
        Step::ReadOnly(path) => said(wire::STEP_READ_ONLY, &[path], &[]),
        Step::Hostname(name) => said(wire::STEP_HOSTNAME, &[name], &[]),
        Step::Loopback => said(wire::STEP_LOOPBACK, &[], &[]),
        Step::Listen(port) => said(wire::STEP_LISTEN, &[], &[port.into()]),
        Step::Limit { resource, value } => said(wire::STEP_RLIMIT, &[], &[resource.into(), value]),
        Step::Landlock {
            handled,
            scoped,
            bytes,
            rules,
        } => {
            let (texts, rights): (Vec<_>, Vec<_>) = rules.unzip();
            let numbers = [&[handled, scoped, bytes.into()], rights.as_slice()].concat();
            said(wire::STEP_LANDLOCK, &texts, &numbers)
        }
        Step::Seccomp { asking, plain } => said(wire::STEP_SECCOMP, &[asking, plain], &[]),
        Step::Watch(watch) => {
            let numbers = [watch.bytes, watch.processes, watch.places.into()];
            said(wire::STEP_WATCH, &[], &numbers)
        }
        Step::Detach => said(wire::STEP_DETACH, &[], &[]),
        Step::Stash {
            source,
            attributes,
            optional,
        } => {
            let numbers = [attributes.into(), optional.into()];
            said(wire::STEP_STASH, &[source], &numbers)
        }
        Step::Attach(target) => said(wire::STEP_ATTACH, &[target], &[]),
        Step::Masks { file, directory } => said(wire::STEP_MASKS, &[file, directory], &[]),
        Step::EndMasks => said(wire::STEP_END_MASKS, &[], &[]),
        Step::Spread {
            source,
            target,
            attributes,
            spared,
        } => {
            let mut texts = vec![source, target];
            texts.extend(spared);
            said(wire::STEP_SPREAD, &texts, &[attributes.into()])
        }
        Step::Hide(paths) => said(wire::STEP_HIDE, &paths.collect::<Vec<_>>(), &[]),
    }
}

/// Numbers and texts that some bytes stand for, as long as there are any.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self
            .0
            .split_first()
            .map_or((0, self.0), |(it, rest)| (*it, rest));
        self.0 = rest;
        first
    }

    fn word(&mut self) -> u32 {
        let (low, high) = (self.byte(), self.byte());
        u32::from(low) | u32::from(high) << 24
    }

    fn long(&mut self) -> u64 {
        u64::from(self.word()) << 32 | u64::from(self.word())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken.to_vec()
    }

    /// A path that a specification can hold.
    fn path(&mut self) -> PathBuf {
        let mut path = b"/".to_vec();
        path.extend(self.bytes().into_iter().filter(|byte| *byte != 0));
        OsString::from_vec(path).into()
    }

    fn text(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.bytes()).into_owned();
        text.replace('\0', "")
    }
}

/// A plan of steps that the bytes choose, as the owner writes it, and what was said of each.
#[must_use]
pub fn written(choices: &[u8]) -> (Vec<u8>, Vec<Said>) {
    let mut from = Choices(choices);
    let (mut plan, mut all) = (Plan::default(), Vec::new());
    while !from.0.is_empty() {
        all.push(write(&mut plan, &mut from));
    }
    (plan.bytes().to_vec(), all)
}

fn write(plan: &mut Plan, from: &mut Choices<'_>) -> Said {
    let own = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
    let hosts = |path: &PathBuf| [wire::OLD_ROOT.as_bytes(), path.as_os_str().as_bytes()].concat();
    let said = |code, texts: Vec<Vec<u8>>, numbers: Vec<u64>| Said {
        code,
        texts,
        numbers,
    };
    let (path, number) = (from.path(), from.word());
    match from.byte() % 17 {
        0 => {
            plan.directory(&path, number);
            said(wire::STEP_DIRECTORY, vec![own(&path)], vec![number.into()])
        }
        1 => {
            let other = from.path();
            plan.symlink(&path, &other);
            said(wire::STEP_SYMLINK, vec![own(&path), own(&other)], vec![])
        }
        2 => {
            let content = from.text();
            plan.file(&path, number, &content);
            let texts = vec![own(&path), content.into_bytes()];
            said(wire::STEP_FILE, texts, vec![number.into()])
        }
        3 => {
            let options = from.text();
            plan.tmpfs(&path, &options, number);
            let texts = vec![own(&path), options.into_bytes()];
            said(wire::STEP_TMPFS, texts, vec![number.into()])
        }
        4 => {
            let (target, optional) = (from.path(), number % 2 == 0);
            plan.bind(&path, &target, number, optional);
            let numbers = vec![number.into(), optional.into()];
            said(wire::STEP_BIND, vec![hosts(&path), own(&target)], numbers)
        }
        5 => {
            plan.stash(&path, number);
            said(wire::STEP_STASH, vec![hosts(&path)], vec![number.into(), 0])
        }
        6 => {
            let lowers: Vec<PathBuf> = (0..number % 5).map(|_| from.path()).collect();
            let (upper, work, volatile) = (from.path(), from.path(), number % 2 == 0);
            plan.overlay(&path, &upper, &work, &lowers, volatile);
            let mut texts = vec![own(&path), hosts(&upper), hosts(&work)];
            texts.extend(lowers.iter().map(hosts));
            said(wire::STEP_OVERLAY, texts, vec![volatile.into()])
        }
        7 => {
            let names = [from.text(), from.text()];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            plan.hide(&path, &names);
            let paths = names.iter().map(|name| own(&path.join(name)));
            said(wire::STEP_HIDE, paths.collect(), vec![])
        }
        8 => {
            let (handled, scoped, rights) = (from.long(), from.long(), from.long());
            plan.landlock(handled, scoped, number, &[(&path, rights), (&path, 0)]);
            let numbers = vec![handled, scoped, number.into(), rights, 0];
            said(wire::STEP_LANDLOCK, vec![own(&path), own(&path)], numbers)
        }
        9 => {
            let (asking, plain) = (from.bytes(), from.bytes());
            plan.seccomp(&asking, &plain);
            said(wire::STEP_SECCOMP, vec![asking, plain], vec![])
        }
        10 => {
            let value = from.long();
            plan.rlimit(number, "a limit", value);
            said(wire::STEP_RLIMIT, vec![], vec![number.into(), value])
        }
        11 => {
            let (bytes, processes) = (from.long(), from.long());
            plan.watch(Some(bytes), Some(processes), number);
            said(
                wire::STEP_WATCH,
                vec![],
                vec![bytes, processes, number.into()],
            )
        }
        12 => {
            let port = u16::try_from(number >> 16).unwrap_or(0);
            plan.listen(port);
            said(wire::STEP_LISTEN, vec![], vec![port.into()])
        }
        13 => {
            let (target, names) = (from.path(), [from.text(), from.text()]);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            plan.spread(&path, &target, number, &names);
            // The fresh root needs no slash before the names in it.
            let place = match target == Path::new("/") {
                true => Vec::new(),
                false => own(&target),
            };
            let mut texts = vec![hosts(&path), place];
            texts.extend(names.iter().map(|name| name.as_bytes().to_vec()));
            said(wire::STEP_SPREAD, texts, vec![number.into()])
        }
        14 => {
            plan.unswapped(&path);
            said(wire::STEP_UNSWAPPED, vec![own(&path)], vec![])
        }
        15 => {
            let other = from.path();
            plan.masks(&path, &other);
            said(wire::STEP_MASKS, vec![own(&path), own(&other)], vec![])
        }
        _ => {
            plan.attach(&path);
            said(wire::STEP_ATTACH, vec![own(&path)], vec![])
        }
    }
}
