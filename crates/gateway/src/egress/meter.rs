//! Bodies and streams that are watched as they pass.

use super::passage::Passage;
use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Why a body that passes ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Ended(pub(super) String);

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// A body that passes. It ends with an error when a bound of time strikes, or it is not allowed any
/// more. Its bytes are counted on the connection.
pub(super) struct Watched {
    body: Incoming,
    passage: Arc<Passage>,
    quiet: Pin<Box<Sleep>>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Watched {
    pub(super) fn new(body: Incoming, passage: Arc<Passage>) -> Self {
        let until = (Instant::now() + passage.idle()).min(passage.deadline);
        let end = passage.end.clone().cancelled_owned();
        Self {
            body,
            passage,
            quiet: Box::pin(sleep_until(until)),
            end: Box::pin(end),
        }
    }

    fn fail(&self, why: String) -> Ended {
        self.passage.ended(why.clone());
        Ended(why)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Ended;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        if self.end.as_mut().poll(cx).is_ready() {
            let why = self.passage.stopped().to_owned();
            return Poll::Ready(Some(Err(self.fail(why))));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let until = (Instant::now() + self.passage.idle()).min(self.passage.deadline);
                self.quiet.as_mut().reset(until);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Ended(error.to_string())))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.quiet.as_mut().poll(cx).is_ready() => {
                let why = too_long(&self.passage);
                Poll::Ready(Some(Err(self.fail(why))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that passes, or one of the gateway's own.
pub(crate) type Passed = UnsyncBoxBody<Bytes, Ended>;

/// A body of the gateway's own.
pub(crate) fn own(body: crate::body::Body) -> Passed {
    body.map_err(|error| Ended(error.to_string()))
        .boxed_unsync()
}

/// Which bound of time struck.
fn too_long(passage: &Passage) -> String {
    if Instant::now() >= passage.deadline {
        "the connection lasted too long".into()
    } else {
        format!("nothing passed for {} s", passage.idle().as_secs())
    }
}

/// Passes bytes both ways until both ends are done, or a bound strikes. The connection out counts
/// them.
pub(super) async fn splice(
    inside: impl AsyncRead + AsyncWrite,
    outside: impl AsyncRead + AsyncWrite,
    passage: &Passage,
) {
    let (from_inside, to_inside) = tokio::io::split(inside);
    let (from_outside, to_outside) = tokio::io::split(outside);
    let both = async {
        tokio::try_join!(
            pass(from_inside, to_outside, passage),
            pass(from_outside, to_inside, passage),
        )
    };
    tokio::select! {
        biased;
        () = passage.end.cancelled() => passage.ended(passage.stopped()),
        () = sleep_until(passage.deadline) => passage.ended(too_long(passage)),
        ended = both => {
            if let Err(Some(why)) = ended {
                passage.ended(why);
            }
        }
    }
}

/// Passes bytes one way. What one of the two ends does wrong is no event.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passage: &Passage,
) -> Result<(), Option<String>> {
    let ends = |_: io::Error| None;
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match tokio::time::timeout(passage.idle(), from.read(&mut chunk)).await {
            Ok(read) => read.map_err(ends)?,
            // The other way may be busy: a long download says nothing up.
            Err(_) if passage.is_busy() => continue,
            Err(_) => return Err(Some(too_long(passage))),
        };
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await.map_err(ends);
        };
        let write = tokio::time::timeout(passage.idle(), to.write_all(bytes)).await;
        write.map_err(|_| Some(too_long(passage)))?.map_err(ends)?;
    }
}
