//! What sandboxes get of the machine.

use super::sidecars::{self, Sidecar};
use sandbox::{Kind, container::Options as Containers};
use serde::Deserialize;
use server::Shares;

/// The least memory in which anything starts.
pub(super) const LEAST_MEMORY: u64 = 16 << 20;
pub(super) const LEAST_PROCESSES: u64 = 8;
const MOST_PROCESSES: u64 = 1 << 20;
const MOST_WARM: usize = 256;
const LEAST_FILE: u64 = 1 << 20;
/// A hundredth of a processor is the least that the kernel can give.
const LEAST_MILLI: u64 = 10;
const MOST_PROCESSORS: f64 = 4_096.0;

/// The kinds that a configuration can choose: what seals nothing is asked for each time.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Chosen {
    Namespace,
    Container,
}

/// The name of an image, as engines take it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Image(pub(crate) String);

impl TryFrom<String> for Image {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if is_reference(&name) {
            return Ok(Self(name));
        }
        Err(format!(
            "`{}` is no name of an image: write one like `docker.io/library/debian:12`",
            name.escape_debug()
        ))
    }
}

/// Whether engines take it: `[HOST[:PORT]/]PATH[:TAG][@ALGORITHM:DIGEST]`, of which only a host and a tag
/// may have capitals.
fn is_reference(name: &str) -> bool {
    const LONGEST: usize = 400;
    const LONGEST_TAG: usize = 128;
    let of = |text: &str, fits: fn(char) -> bool, more: &str| {
        text.starts_with(fits) && text.chars().all(|c| fits(c) || more.contains(c))
    };
    let any: fn(char) -> bool = |c| c.is_ascii_alphanumeric();
    let small: fn(char) -> bool = |c| c.is_ascii_lowercase() || c.is_ascii_digit();
    let (rest, digest_fits) = match name.split_once('@') {
        Some((rest, digest)) => (rest, of(digest, any, "+._-:") && digest.contains(':')),
        None => (name, true),
    };
    // A colon before the last slash is that of a port.
    let (path, tag_fits) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => {
            let begins = tag.trim_start_matches('_');
            let fits = begins.is_empty() || of(begins, any, "-_.");
            (path, fits && (1..=LONGEST_TAG).contains(&tag.len()))
        }
        _ => (rest, true),
    };
    let (host_fits, below) = match path.split_once('/') {
        Some((host, below)) if host == "localhost" || host.contains(['.', ':']) => {
            (of(host, any, "-.:"), below)
        }
        _ => (true, path),
    };
    let part_fits = |part: &str| of(part, small, "-_.") && part.ends_with(small);
    let fits = digest_fits && tag_fits && host_fits && below.split('/').all(part_fits);
    fits && name.len() <= LONGEST
}

impl std::str::FromStr for Image {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.to_owned().try_into()
    }
}

/// The table `[sandbox]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sandbox {
    /// The kind of all of them.
    kind: Option<Chosen>,
    /// The image of containers.
    image: Option<Image>,
    /// What runs beside containers.
    sidecar: Vec<Sidecar>,
    /// The memory of one.
    #[serde(deserialize_with = "size")]
    memory: Option<u64>,
    /// The processes and threads of one.
    processes: Option<u64>,
    /// The largest file.
    #[serde(deserialize_with = "size")]
    file_size: Option<u64>,
    /// The processors of one.
    #[serde(deserialize_with = "processors")]
    cpus: Option<u64>,
    /// The memory of all together.
    #[serde(deserialize_with = "size")]
    total_memory: Option<u64>,
    /// The processors of all together.
    #[serde(deserialize_with = "processors")]
    total_cpus: Option<u64>,
    /// How many are kept ready.
    warm: Option<usize>,
    /// Devices of this machine that each gets.
    devices: Vec<String>,
    /// Whether namespaces can be made in each.
    nested: bool,
}

impl Sandbox {
    /// The kind, if one is chosen.
    pub(crate) fn kind(&self) -> Option<Kind> {
        self.kind.map(|kind| match kind {
            Chosen::Namespace => Kind::Namespace,
            Chosen::Container => Kind::Container,
        })
    }

    /// What containers are made of.
    pub(crate) fn container(&self) -> Containers {
        Containers {
            image: self.image.as_ref().map(|image| image.0.clone()),
            sidecars: self.sidecar.iter().map(Sidecar::made).collect(),
            ..Containers::default()
        }
    }

    /// Whether namespaces can be made in each.
    pub(crate) fn nested(&self) -> bool {
        self.nested
    }

    /// The devices that each gets.
    pub(crate) fn devices(&self) -> &[String] {
        &self.devices
    }

    /// What is set, and what is usual where nothing is.
    pub(crate) fn shares(&self) -> Shares {
        let mut shares = Shares::default();
        let (one, all) = (&mut shares.one, &mut shares.all);
        one.memory_bytes = self.memory.or(one.memory_bytes);
        one.processes = self.processes.or(one.processes);
        one.file_bytes = self.file_size.or(one.file_bytes);
        one.cpu_milli = self.cpus.or(one.cpu_milli);
        all.memory_bytes = self.total_memory.or(all.memory_bytes);
        all.cpu_milli = self.total_cpus.or(all.cpu_milli);
        shares.warm = self.warm.unwrap_or(shares.warm);
        shares
    }

    /// Says which of them makes no sense.
    pub(super) fn validate(&self) -> Result<(), String> {
        let least = |name: &str, value: Option<u64>, least: u64, words: &str| match value {
            Some(value) if value < least => Err(format!(
                "`{name}` in `[sandbox]` is too little; it must be at least {words}"
            )),
            _ => Ok(()),
        };
        for (name, is_set) in [
            ("image", self.image.is_some()),
            ("sidecar", !self.sidecar.is_empty()),
        ] {
            if is_set && self.kind != Some(Chosen::Container) {
                return Err(format!(
                    "`{name}` in `[sandbox]` is for containers; write `kind = \"container\"` beside it"
                ));
            }
        }
        sidecars::validate(&self.sidecar)?;
        if self.nested && self.kind == Some(Chosen::Container) {
            return Err(
                "`nested` in `[sandbox]` is for the kind `namespace`: in a container none can be made within"
                    .into(),
            );
        }
        if self.devices.len() > sandbox::devices::MOST {
            return Err(format!(
                "`devices` in `[sandbox]` are more than {}",
                sandbox::devices::MOST
            ));
        }
        if let Some(word) = self
            .devices
            .iter()
            .find(|it| !sandbox::devices::is_word(it))
        {
            return Err(format!(
                "`{}` in `devices` of `[sandbox]` is no device: write a path below /dev, or `gpu`",
                word.escape_debug()
            ));
        }
        least("memory", self.memory, LEAST_MEMORY, "`16MiB`")?;
        least("total_memory", self.total_memory, LEAST_MEMORY, "`16MiB`")?;
        least("file_size", self.file_size, LEAST_FILE, "`1MiB`")?;
        least("processes", self.processes, LEAST_PROCESSES, "8")?;
        if self.warm.is_some_and(|warm| warm > MOST_WARM) {
            return Err(format!(
                "`warm` in `[sandbox]` is too much; it must be at most {MOST_WARM}"
            ));
        }
        match self.processes {
            Some(processes) if processes > MOST_PROCESSES => Err(format!(
                "`processes` in `[sandbox]` is {processes}; it must be at most {MOST_PROCESSES}"
            )),
            _ => Ok(()),
        }
    }
}

/// Reads a whole number with `KiB`, `MiB`, `GiB` or `TiB`.
pub(super) fn size<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let bytes = units.iter().find_map(|(unit, shift)| {
        let number: u64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    // The kernel's files take numbers up to this one.
    match bytes.filter(|bytes| i64::try_from(*bytes).is_ok()) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(serde::de::Error::custom(format!(
            "`{text}` is no size: write one like `512MiB` or `8GiB`"
        ))),
    }
}

/// Reads a number of processors, in thousandths.
pub(super) fn processors<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<u64>, D::Error> {
    let count = f64::deserialize(from)?;
    let milli = (0.0..=MOST_PROCESSORS)
        .contains(&count)
        .then(|| (count * 1000.0).round() as u64)
        .filter(|milli| *milli >= LEAST_MILLI);
    match milli {
        Some(milli) => Ok(Some(milli)),
        None => Err(serde::de::Error::custom(format!(
            "{count} is no number of processors: write one like 2 or 0.5"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sandbox, String> {
        let table: Sandbox = toml::from_str(text).map_err(|error| error.to_string())?;
        table.validate().map(|()| table)
    }

    #[test]
    fn what_is_set_takes_the_place_of_what_is_usual() {
        let usual = Shares::default();
        let text = "memory = '2GiB'\nprocesses = 100\nfile_size = '64MiB'\ncpus = 1.5\ntotal_memory = '4 GiB'\ntotal_cpus = 2\nwarm = 0";
        let Shares { one, all, warm } = read(text).unwrap().shares();
        assert_eq!(one.memory_bytes, Some(2 << 30));
        assert_eq!((one.processes, one.file_bytes), (Some(100), Some(64 << 20)));
        assert_eq!((one.cpu_milli, all.cpu_milli), (Some(1_500), Some(2_000)));
        assert_eq!((all.memory_bytes, warm), (Some(4 << 30), 0));
        assert_eq!(one.open_files, usual.one.open_files);
        assert_eq!(read("").unwrap().shares(), usual);
        let warm = usual.warm();
        assert_eq!((warm.all, warm.each), (4, 2));
    }

    #[test]
    fn the_kind_can_be_chosen_but_not_the_one_that_seals_nothing() {
        assert_eq!(read("").unwrap().kind(), None);
        let chosen = read("kind = 'container'").unwrap().kind();
        assert_eq!(chosen, Some(Kind::Container));
        let chosen = read("kind = 'namespace'").unwrap().kind();
        assert_eq!(chosen, Some(Kind::Namespace));
        assert!(
            read("kind = 'host'")
                .unwrap_err()
                .contains("unknown variant `host`")
        );
    }

    // docs/bad-input.md: A name of an image that no engine takes
    #[test]
    fn an_image_is_for_containers_and_is_named_as_engines_name_them() {
        let text = "kind = 'container'\nimage = 'docker.io/library/debian:12'";
        let image = read(text).unwrap().container().image;
        assert_eq!(image.as_deref(), Some("docker.io/library/debian:12"));
        for text in ["image = 'debian'", "kind = 'namespace'\nimage = 'debian'"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("`kind = \"container\"`"), "{error}");
        }
        for name in [
            "debian",
            "localhost/skep-test:latest",
            "LOCALHOST.x:5000/a/b-c:1.0_B",
            "x@sha256:0a",
            "0123abcd",
        ] {
            assert!(Image::try_from(name.to_owned()).is_ok(), "{name}");
        }
        let long = "x".repeat(401);
        for name in [
            "",
            "-x",
            "a b",
            "a\u{1b}[0m",
            &long,
            "Debian",
            "a:b:c",
            "a:",
            "a/",
            "a//b",
            "x@y",
            "a:-x",
        ] {
            let error = Image::try_from(name.to_owned()).unwrap_err();
            assert!(error.contains("is no name of an image"), "{error}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for (text, expected) in [
            ("memory = '8'", "`8` is no size"),
            ("memory = '1MiB'", "at least `16MiB`"),
            ("file_size = '99999999TiB'", "is no size"),
            ("processes = 1", "at least 8"),
            ("processes = 2000000", "at most 1048576"),
            ("warm = 1000", "at most 256"),
            ("cpus = 0", "no number of processors"),
            ("cpus = -1", "no number of processors"),
            ("total_cpus = 1e9", "no number of processors"),
            ("memroy = '1GiB'", "unknown field `memroy`"),
            ("devices = ['/etc/passwd']", "write a path below /dev"),
            (
                "devices = ['/dev/../etc/passwd']",
                "write a path below /dev",
            ),
            ("devices = '/dev/kvm'", "invalid type"),
            (
                "kind = 'container'\nnested = true",
                "for the kind `namespace`",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
