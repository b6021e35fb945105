//! Java: the parts of `/etc` that a packaged JDK or Maven links to, and what Maven and Gradle
//! have downloaded.

use std::path::Path;

use super::collect::{Collector, EntryKind, entries, holds_password};
use super::gate::is_visible;
use super::program::variable_root;
use super::{Access, env_path};

/// What Java, Maven and Gradle need beside their own installation.
pub(super) fn dependencies(c: &mut Collector<'_>) {
    if !c.has("java") && !c.has("javac") {
        return;
    }
    variable_root(c, "JAVA_HOME");
    let home = c.which("java").and_then(|it| it.canonicalize().ok());
    if let Some(home) = home.as_deref().and_then(|it| it.parent()?.parent()) {
        linked(c, &home.join("conf"));
        linked(c, &home.join("lib/security"));
        for (name, kind) in entries(&home.join("lib")) {
            let file = home.join("lib").join(&name);
            if kind == EntryKind::Link && file.read_link().is_ok_and(|it| it.starts_with("/etc")) {
                linked(c, &file);
            }
        }
    }
    if c.has("mvn") {
        maven_settings(c, Path::new("/etc/maven"));
    }
    let user = c.input.home.clone();
    let m2 = c.inside_home(".m2");
    c.add_at(
        &user.join(".m2/repository"),
        &m2.join("repository"),
        Access::Layered,
    );
    c.add_at(
        &user.join(".m2/wrapper/dists"),
        &m2.join("wrapper/dists"),
        Access::Layered,
    );
    c.write(
        m2.join("settings.xml"),
        b"<settings><offline>true</offline></settings>\n".to_vec(),
    );
    let gradle = env_path(c.input, "GRADLE_USER_HOME").unwrap_or_else(|| user.join(".gradle"));
    let caches = gradle.join("caches");
    let inside = c.inside_home(".gradle-host/caches");
    if c.add_at(
        &caches.join("modules-2"),
        &inside.join("modules-2"),
        Access::ReadOnly,
    ) {
        // Gradle's own way to share a cache of dependencies that it may not write.
        c.set("GRADLE_RO_DEP_CACHE", inside);
    }
    let dists = c.inside_home(".gradle/wrapper/dists");
    c.add_at(&gradle.join("wrapper/dists"), &dists, Access::Layered);
}

/// What a packaged Maven reads from `/etc`; without its settings where they hold a password: an
/// empty file in their place would keep Maven from starting.
fn maven_settings(c: &mut Collector<'_>, etc: &Path) {
    if !holds_password(&etc.join("settings.xml")) {
        c.add(etc);
        return;
    }
    for part in ["m2.conf", "logging", "toolchains.xml"] {
        let path = etc.join(part);
        if path.exists() {
            c.add(&path);
        }
    }
}

/// Mounts what a link of a packaged JDK leads to in `/etc`, once, at the directory below `/etc`.
fn linked(c: &mut Collector<'_>, path: &Path) {
    let Ok(real) = path.canonicalize() else {
        return;
    };
    // Every sandbox has `/etc/java-*`.
    let listed = real
        .as_os_str()
        .as_encoded_bytes()
        .starts_with(b"/etc/java-");
    if listed || is_visible(&real) || c.covers(&real) {
        return;
    }
    let mut parts = real.components();
    let top: std::path::PathBuf = parts.by_ref().take(3).collect();
    if top.starts_with("/etc") && top.is_dir() && c.add(&top) {
        for place in [
            "management/jmxremote.password",
            "management/jmxremote.access",
        ] {
            c.mask(&top.join(place));
        }
    }
}
