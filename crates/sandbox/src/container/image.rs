//! The image of the configuration, as the engine has it. It is never downloaded here.

use std::ffi::OsString;

use bollard::models::ImageConfig;

use super::engine::{Engine, is_missing, refused};
use crate::Error;
use crate::stdio::DEFAULT_PATH;

/// An image that is there.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// As the configuration names it.
    pub(super) name: String,
    /// What the name meant when it was looked up: another image may get the name.
    pub(super) id: String,
    /// How its programs are started where nothing else is said.
    pub(super) config: ImageConfig,
}

impl Image {
    /// Where its programs are looked for, by its own word.
    pub(super) fn path(&self) -> OsString {
        self.variable("PATH")
            .map_or_else(|| DEFAULT_PATH.into(), Into::into)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let all = self.config.env.as_deref().unwrap_or_default();
        let found = all.iter().find_map(|pair| {
            let (known, value) = pair.split_once('=')?;
            (known == name).then_some(value)
        });
        found.filter(|value| !value.is_empty())
    }
}

impl Engine {
    /// Looks an image up by its name.
    pub(super) async fn image(&self, name: &str) -> Result<Image, Error> {
        let found = self.docker.inspect_image(name).await;
        let found = found.map_err(|error| match is_missing(&error) {
            true => self.no_image(name),
            false => refused("look for an image", error),
        })?;
        let id = found.id.unwrap_or_default();
        Ok(Image {
            name: name.to_owned(),
            id: id.strip_prefix("sha256:").unwrap_or(&id).to_owned(),
            config: found.config.unwrap_or_default(),
        })
    }

    pub(super) fn no_image(&self, name: &str) -> Error {
        Error::ImageMissing {
            engine: self.name.clone(),
            image: name.to_owned(),
            program: if self.is_podman { "podman" } else { "docker" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(env: Option<&str>) -> Image {
        Image {
            name: "x".into(),
            id: "1".into(),
            config: ImageConfig {
                env: env.map(|pair| vec!["LANG=C".into(), pair.into()]),
                ..ImageConfig::default()
            },
        }
    }

    #[test]
    fn programs_are_looked_for_where_the_image_says() {
        assert_eq!(image(Some("PATH=/opt/x:/bin")).path(), "/opt/x:/bin");
        for env in [None, Some("PATH="), Some("PATHS=/x")] {
            assert_eq!(image(env).path(), DEFAULT_PATH, "{env:?}");
        }
    }
}
