//! What package registries never change once it is published.

use serde::Serialize;

/// A kind of package registry, by the name of its preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Registry {
    /// Crates of Rust.
    Cargo,
    /// Packages of Node.
    Npm,
    /// Packages of Python.
    Pypi,
    /// Modules of Go.
    Go,
    /// Artefacts of Java.
    Maven,
    /// Packages of Debian and its like.
    Apt,
}

/// A digest that a protocol gives for an artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Registry {
    /// The one whose preset has this name.
    #[must_use]
    pub fn of(preset: &str) -> Option<Self> {
        Some(match preset {
            "cargo" => Self::Cargo,
            "npm" => Self::Npm,
            "pypi" => Self::Pypi,
            "go" => Self::Go,
            "maven" => Self::Maven,
            "apt" => Self::Apt,
            _ => return None,
        })
    }

    /// Whether what is at this path never changes. Paths that can be read in two ways, and such with a
    /// query, are no artefact's.
    #[must_use]
    pub fn is_immutable(self, target: &str) -> bool {
        if target.contains('?') {
            return false;
        }
        let Some(path) = super::path::plain(target) else {
            return false;
        };
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
        match (self, segments.as_slice()) {
            (Self::Cargo, [.., "crates", _, version, "download"]) => has_number(version),
            (Self::Cargo, [.., file]) => file.ends_with(".crate") && has_number(file),
            (Self::Npm, [.., "-", file]) => file.ends_with(".tgz") && has_number(file),
            (Self::Pypi, [.., file]) => {
                !segments.contains(&"simple")
                    && ends(&[".whl", ".whl.metadata", ".tar.gz", ".zip"])
                    && has_number(file)
            }
            (Self::Go, [.., "@v", file]) => {
                let kinds = [".zip", ".mod", ".info"];
                let version = kinds.iter().find_map(|kind| file.strip_suffix(kind));
                version.is_some_and(is_whole_version)
            }
            (Self::Maven, [.., version, file]) => {
                ends(&[".jar", ".pom", ".aar", ".war", ".module"])
                    && has_number(version)
                    && file.contains(version)
                    && !path.contains("-SNAPSHOT")
            }
            (Self::Apt, [.., "by-hash", _, _]) => self.digest(target).is_some(),
            (Self::Apt, [.., file]) => {
                segments.contains(&"pool") && file.ends_with(".deb") && has_number(file)
            }
            _ => false,
        }
    }

    /// The digest that the path itself gives.
    #[must_use]
    pub fn digest(self, target: &str) -> Option<Digest> {
        let mut segments = target.rsplit('/');
        let (hex, kind, place) = (segments.next()?, segments.next()?, segments.next()?);
        if self != Self::Apt || place != "by-hash" {
            return None;
        }
        match kind {
            "SHA256" => Some(Digest::Sha256(bytes(hex)?)),
            "SHA512" => Some(Digest::Sha512(bytes(hex)?)),
            _ => None,
        }
    }
}

fn has_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// `v1.2.3`, perhaps with more behind it: of a branch or of `v1`, a registry says what is newest.
fn is_whole_version(text: &str) -> bool {
    let Some(version) = text.strip_prefix('v') else {
        return false;
    };
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split('.').count() == 3 && numbers.split('.').all(is_number)
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if hex.len() != N * 2 || !hex.is_ascii() {
        return None;
    }
    for (to, digits) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *to = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_changes_is_an_artefact() {
        let sha = "0".repeat(64);
        let by_hash = format!("/debian/dists/stable/main/binary-amd64/by-hash/SHA256/{sha}");
        let short = format!(
            "/debian/dists/stable/main/binary-amd64/by-hash/SHA256/{}",
            &sha[1..]
        );
        for (registry, path, expected) in [
            ("cargo", "/api/v1/crates/serde/1.0.1/download", true),
            ("cargo", "/crates/serde/serde-1.0.1.crate", true),
            ("cargo", "/se/rd/serde", false),
            ("cargo", "/config.json", false),
            ("npm", "/left-pad/-/left-pad-1.3.0.tgz", true),
            ("npm", "/@types/node/-/node-1.0.0.tgz", true),
            ("npm", "/left-pad", false),
            ("npm", "/left-pad/-/left-pad-1.3.0.tgz?x", false),
            ("npm", "/-/npm/v1/security/advisories/bulk", false),
            ("pypi", "/packages/ab/cd/ef/x-1.0-py3-none-any.whl", true),
            ("pypi", "/packages/ab/cd/ef/x-1.0.tar.gz", true),
            ("pypi", "/simple/x/", false),
            ("pypi", "/simple/x-1.0.zip", false),
            ("go", "/example.com/x/@v/v1.2.3.zip", true),
            (
                "go",
                "/example.com/x/@v/v0.0.0-20200101000000-abcdef.mod",
                true,
            ),
            ("go", "/example.com/x/@v/v2.0.0+incompatible.info", true),
            ("go", "/example.com/x/@v/list", false),
            ("go", "/example.com/x/@latest", false),
            ("go", "/example.com/x/@v/master.info", false),
            ("go", "/example.com/x/@v/v1.info", false),
            ("maven", "/maven2/a/b/1.0/b-1.0.jar", true),
            (
                "maven",
                "/maven2/a/b/1.0-SNAPSHOT/b-1.0-SNAPSHOT.jar",
                false,
            ),
            ("maven", "/maven2/a/b/maven-metadata.xml", false),
            ("apt", "/debian/pool/main/x/xy/xy_1.0-1_amd64.deb", true),
            ("apt", by_hash.as_str(), true),
            ("apt", short.as_str(), false),
            ("apt", "/debian/dists/stable/InRelease", false),
            ("npm", "/a/../b/-/b-1.0.0.tgz", false),
        ] {
            let registry = Registry::of(registry).unwrap();
            assert_eq!(registry.is_immutable(path), expected, "{path}");
        }
        assert_eq!(
            Registry::Apt.digest(&by_hash),
            Some(Digest::Sha256([0; 32]))
        );
    }
}
