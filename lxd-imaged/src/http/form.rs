//! A `multipart/form-data` body, one part after the other.

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use lxd_proto::multipart::{Event, Limits, Multipart, MultipartError, PartHead};

use super::extract;
use crate::error::{Error, Result};

/// Bytes that may follow the end of a form.
const EPILOGUE: usize = 64 << 10;

/// A form that is being received.
pub(super) struct Form {
    body: BodyDataStream,
    reader: Multipart,
    /// Read, but for whoever asks next.
    ahead: Option<Event>,
}

impl Form {
    /// A form whose parts `boundary` separates.
    pub(super) fn new(body: Body, boundary: &str) -> Result<Self> {
        let reader = Multipart::new(boundary, Limits::default()).map_err(malformed)?;
        Ok(Self { body: body.into_data_stream(), reader, ahead: None })
    }

    /// The next part; what was not read of the one before is skipped. `None` at the end.
    pub(super) async fn part(&mut self) -> Result<Option<PartHead>> {
        loop {
            match extract::in_time(self.event()).await?? {
                Event::Part(head) => return Ok(Some(head)),
                Event::Data(_) => {}
                Event::End => {
                    self.drop_epilogue().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// The bytes of the current part.
    pub(super) fn content(&mut self) -> impl Stream<Item = Result<Bytes>> + Unpin + '_ {
        Box::pin(stream::unfold(self, async |form| match form.event().await {
            Ok(Event::Data(bytes)) => Some((Ok(bytes), form)),
            Ok(next) => {
                form.ahead = Some(next);
                None
            }
            Err(error) => Some((Err(error), form)),
        }))
    }

    async fn event(&mut self) -> Result<Event> {
        if let Some(event) = self.ahead.take() {
            return Ok(event);
        }
        loop {
            if let Some(event) = self.reader.next().map_err(malformed)? {
                return Ok(event);
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.reader.push(bytes),
                Some(Err(error)) => return Err(Error::Upload(error.to_string())),
                None => {
                    self.reader.finish().map_err(malformed)?;
                    return Ok(Event::End);
                }
            }
        }
    }

    /// A connection can be used again only when its last request is read whole.
    async fn drop_epilogue(&mut self) -> Result<()> {
        let mut left = EPILOGUE;
        while let Some(Ok(bytes)) = extract::in_time(self.body.next()).await? {
            let Some(rest) = left.checked_sub(bytes.len()) else { break };
            left = rest;
        }
        Ok(())
    }
}

fn malformed(error: MultipartError) -> Error {
    Error::Upload(error.to_string())
}
