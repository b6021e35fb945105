//! What the tests run that is not part of the project: each is there, and new enough.

use crate::step::{self, command, first_line};

/// A program that tests run, and how to get it.
struct Need {
    program: &'static str,
    /// What makes it tell its version.
    version: &'static str,
    /// The least version that will do, where one is known.
    least: Option<(u32, u32)>,
    /// The package of Debian that has it.
    package: &'static str,
}

const fn any(program: &'static str, package: &'static str) -> Need {
    Need {
        program,
        version: "--version",
        least: None,
        package,
    }
}

const fn at_least(program: &'static str, package: &'static str, least: (u32, u32)) -> Need {
    Need {
        program,
        version: "--version",
        least: Some(least),
        package,
    }
}

const NEEDS: [Need; 25] = [
    at_least("git", "git", (2, 38)),
    at_least("python3", "python3", (3, 8)),
    any("pip3", "python3-pip"),
    at_least("node", "nodejs", (20, 0)),
    any("npm", "npm"),
    Need {
        program: "go",
        version: "version",
        least: Some((1, 19)),
        package: "golang-go",
    },
    any("mvn", "maven"),
    any("apt-get", "apt"),
    any("curl", "curl"),
    // What it says of itself begins with an empty line.
    Need {
        program: "perl",
        version: "-V:version",
        least: None,
        package: "perl",
    },
    any("ps", "procps"),
    // A sandbox in a sandbox, and what ours are measured beside.
    any("bwrap", "bubblewrap"),
    Need {
        program: "openssl",
        version: "version",
        least: None,
        package: "openssl",
    },
    any("setpriv", "util-linux"),
    any("unshare", "util-linux"),
    any("mount", "util-linux"),
    any("script", "bsdutils"),
    any("tar", "tar"),
    Need {
        program: "ssh",
        version: "-V",
        least: None,
        package: "openssh-client",
    },
    any("rsync", "rsync"),
    // Editors copy by it.
    Need {
        program: "/usr/lib/openssh/sftp-server",
        version: "-Qrequests",
        least: None,
        package: "openssh-sftp-server",
    },
    at_least("podman", "podman", (4, 0)),
    any("runc", "runc"),
    at_least("dockerd", "docker.io", (20, 10)),
    any("bash", "bash"),
];

/// Every program that tests run is there. What is missing is installed where that can be done
/// without asking: as root, on a Debian. Else it is named with how to get it.
pub(crate) fn needs() -> Result<(), String> {
    println!("== needs");
    for need in &NEEDS {
        let mut line = said(need);
        if line.is_none() && may_install() {
            install(need.package)?;
            line = said(need);
        }
        println!("{}: {}", need.program, fits(need, line.as_deref())?);
    }
    Ok(())
}

/// What a program says of its version, also where it is in none of this user's directories, but in the
/// one for root's: some that root starts are of use to everybody.
fn said(need: &Need) -> Option<String> {
    let roots = format!("/usr/sbin/{}", need.program);
    first_line(need.program, &[need.version]).or_else(|| first_line(&roots, &[need.version]))
}

/// The version line of a program that is there and new enough.
fn fits<'a>(need: &Need, line: Option<&'a str>) -> Result<&'a str, String> {
    let Need {
        program, package, ..
    } = need;
    let wanted = match need.least {
        Some((major, minor)) => format!("{program} {major}.{minor} or newer"),
        None => (*program).to_owned(),
    };
    let remedy = format!("install {wanted} (Debian: apt-get install {package})");
    let line = line.ok_or_else(|| format!("`{program}` is missing: {remedy}"))?;
    let Some(least) = need.least else {
        return Ok(line);
    };
    match version(line) {
        Some(found) if found >= least => Ok(line),
        Some(_) => Err(format!("`{program}` is too old ({line}): {remedy}")),
        None => Err(format!(
            "`{program}` does not tell its version ({line}): {remedy}"
        )),
    }
}

/// The first number in a line that has a point in it, as major and minor version.
fn version(line: &str) -> Option<(u32, u32)> {
    line.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let (major, rest) = word.split_once('.')?;
            let minor = rest.split('.').next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
}

fn may_install() -> bool {
    rustix::process::geteuid().is_root() && first_line("apt-get", &["--version"]).is_some()
}

fn install(package: &str) -> Result<(), String> {
    let mut install = command(
        "apt-get",
        &["install", "--yes", "--no-install-recommends", package],
    );
    install.env("DEBIAN_FRONTEND", "noninteractive");
    // What serves others is not started: in this runlevel nothing is.
    install.env("RUNLEVEL", "1");
    let name = format!("install {package}");
    if step::run(&name, &mut install).is_ok() {
        return Ok(());
    }
    // The list of packages may be missing or old.
    step::run("update", &mut command("apt-get", &["update"]))?;
    step::run(&name, &mut install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (line, expected) in [
            ("git version 2.39.5", Some((2, 39))),
            ("v20.19.2", Some((20, 19))),
            ("Python 3.12.1", Some((3, 12))),
            ("go version go1.19.8 linux/amd64", Some((1, 19))),
            ("GNU bash, version 5.2.15(1)-release", Some((5, 2))),
            ("a word", None),
        ] {
            assert_eq!(version(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_missing_or_too_old_is_named_with_how_to_get_it() {
        let node = at_least("node", "nodejs", (20, 0));
        assert_eq!(fits(&node, Some("v20.0.0")), Ok("v20.0.0"));
        for (line, what) in [(Some("v18.19.0"), "too old (v18.19.0)"), (None, "missing")] {
            let told = fits(&node, line).unwrap_err();
            assert!(told.contains(what), "{told}");
            assert!(
                told.contains("install node 20.0 or newer (Debian: apt-get install nodejs)"),
                "{told}"
            );
        }
        assert_eq!(fits(&any("tar", "tar"), Some("tar")), Ok("tar"));
    }
}
