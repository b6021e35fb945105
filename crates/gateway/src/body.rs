//! The body of an answer, as it comes.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

/// The body of an answer: bytes exactly as the provider sent them, then the end, or the error
/// that ended it. The call is settled before the end is told. Dropping it cancels the call.
#[derive(Debug)]
pub struct Body {
    stage: Stage,
    /// How many bytes are still to come, where that is known.
    left: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    Streaming {
        chunks: mpsc::Receiver<Bytes>,
        end: oneshot::Receiver<End>,
    },
    Ending(oneshot::Receiver<End>),
    Over(Option<End>),
}

/// What is told once the call is settled.
#[derive(Debug)]
pub(crate) struct End {
    /// The last bytes.
    pub(crate) tail: Bytes,
    /// What ended the answer, if it did not end well.
    pub(crate) error: Option<Error>,
}

impl Body {
    pub(crate) fn streaming(
        chunks: mpsc::Receiver<Bytes>,
        end: oneshot::Receiver<End>,
        length: Option<u64>,
    ) -> Self {
        Self {
            stage: Stage::Streaming { chunks, end },
            left: length,
        }
    }

    pub(crate) fn whole(tail: Bytes, error: Option<Error>) -> Self {
        Self {
            left: error.is_none().then_some(tail.len() as u64),
            stage: Stage::Over(Some(End { tail, error })),
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            match &mut self.stage {
                Stage::Streaming { chunks, .. } => match ready!(chunks.poll_recv(cx)) {
                    Some(chunk) => return Poll::Ready(Some(Ok(chunk))),
                    None => {
                        if let Stage::Streaming { end, .. } =
                            std::mem::replace(&mut self.stage, Stage::Over(None))
                        {
                            self.stage = Stage::Ending(end);
                        }
                    }
                },
                Stage::Ending(end) => {
                    // A sender that is gone without a word was ended with its grant.
                    let end = ready!(Pin::new(end).poll(cx)).unwrap_or(End {
                        tail: Bytes::new(),
                        error: Some(Error::Revoked),
                    });
                    self.stage = Stage::Over(Some(end));
                }
                Stage::Over(end) => {
                    let Some(over) = end else {
                        return Poll::Ready(None);
                    };
                    let tail = std::mem::take(&mut over.tail);
                    if !tail.is_empty() {
                        return Poll::Ready(Some(Ok(tail)));
                    }
                    let error = end.take().and_then(|over| over.error);
                    return Poll::Ready(error.map(Err));
                }
            }
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the answer ended in another way than well: it was cut, took too long, was too large,
    /// told of an error, or the grant was revoked.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_chunk(cx)).await.transpose()
    }

    /// All that is still to come. It is bounded by the gateway's largest answer.
    ///
    /// # Errors
    /// As for [`Body::chunk`].
    pub async fn collect(mut self) -> Result<Bytes, Error> {
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(first.as_ref());
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The first bytes, at most `limit`, up to the end or an error.
    pub(crate) async fn head(mut self, limit: usize) -> Bytes {
        let mut all = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let room = limit.saturating_sub(all.len()).min(chunk.len());
            all.extend_from_slice(&chunk.slice(..room));
            if all.len() >= limit {
                break;
            }
        }
        all.freeze()
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = ready!(self.poll_chunk(cx));
        if let (Some(Ok(chunk)), Some(left)) = (&next, &mut self.left) {
            *left = left.saturating_sub(chunk.len() as u64);
        }
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
