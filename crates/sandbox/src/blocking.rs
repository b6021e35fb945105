//! Work that blocks, where that keeps nobody waiting.

use crate::Error;

/// Does it on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Io {
        doing,
        source: std::io::Error::other(error),
    })?
}
