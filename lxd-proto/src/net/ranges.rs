//! Pieces of one file, asked for in parallel and handed out in order.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::net::Http;
use crate::net::download::Download;
use crate::net::head::Head;
use crate::net::trickle::Trickle;
use crate::remote::{Error, Result};

/// Only where at least so many bytes are still to come.
pub(super) const PARALLEL_FROM: u64 = 64 << 20;
/// Bytes of one piece.
const PIECE: u64 = 4 << 20;

/// A piece that is on its way.
struct Coming {
    /// Its bytes as they come, and why there are no more if it is not complete. It holds a
    /// piece at most.
    bytes: mpsc::UnboundedReceiver<Result<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// The rest of a file, read ahead. Dropping it ends all transfers.
pub(super) struct Ranges {
    asking: Asking,
    begins_at: u64,
    /// Where the next piece begins that is asked for.
    next: u64,
    length: u64,
    /// Pieces that are on their way at once.
    limit: usize,
    coming: VecDeque<Coming>,
}

/// How each piece is asked for.
#[derive(Clone)]
struct Asking {
    http: Http,
    url: Url,
    headers: HeaderMap,
    length: u64,
}

impl Ranges {
    /// Begins to read ahead, one piece beyond where `download` is.
    pub(super) fn ahead(download: &Download, length: u64, limit: usize) -> Self {
        let mut headers = download.headers.clone();
        if let Some(validator) = &download.validator {
            headers.insert(IF_RANGE, validator.clone());
        }
        let begins_at = download.position() + PIECE;
        let (http, url) = (download.http.clone(), download.url.clone());
        let mut ranges = Self {
            asking: Asking { http, url, headers, length },
            begins_at,
            next: begins_at,
            length,
            limit,
            coming: VecDeque::new(),
        };
        // The stream that goes on meanwhile is one of them.
        while ranges.coming.len() + 1 < limit && ranges.ask() {}
        ranges
    }

    /// The first byte that comes from here.
    pub(super) fn begins_at(&self) -> u64 {
        self.begins_at
    }

    /// The next bytes; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            while self.coming.len() < self.limit && self.ask() {}
            let Some(coming) = self.coming.front_mut() else { return Ok(None) };
            match coming.bytes.recv().await {
                Some(bytes) => return bytes.map(Some),
                None => self.coming.pop_front(),
            };
        }
    }

    /// Asks for one more piece, if there is one.
    fn ask(&mut self) -> bool {
        if self.next >= self.length {
            return false;
        }
        let (first, end) = (self.next, self.length.min(self.next + PIECE));
        let asking = self.asking.clone();
        let (sender, bytes) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            if let Err(error) = asking.piece(first, end, &sender).await {
                // Nobody listens any more: then nobody misses it.
                let _ = sender.send(Err(error));
            }
        });
        self.coming.push_back(Coming { bytes, _task: AbortOnDropHandle::new(task) });
        self.next = end;
        true
    }
}

impl Asking {
    /// Sends the bytes from `first` up to but without `end`.
    async fn piece(
        mut self,
        first: u64,
        end: u64,
        to: &mpsc::UnboundedSender<Result<Bytes>>,
    ) -> Result<()> {
        let range = HeaderValue::from_str(&format!("bytes={first}-{}", end - 1));
        self.headers.insert(RANGE, range.map_err(|_| self.wrong())?);
        let response = self.http.follow(Method::GET, &self.url, &self.headers).await?;
        let mut response = self.http.success(response).await?;
        let fits = Head::of(&response).content_range().is_some_and(|range| {
            range.first == first
                && range.last + 1 == end
                && range.total.is_none_or(|total| total == self.length)
        });
        if !fits || response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.wrong());
        }
        let mut left = end - first;
        let mut trickle = Trickle::default();
        while let Some(bytes) = self.http.next_of(&mut response, &mut trickle).await? {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| self.wrong())?;
            if to.send(Ok(bytes)).is_err() {
                return Ok(());
            }
        }
        if left == 0 { Ok(()) } else { Err(self.wrong()) }
    }

    fn wrong(&self) -> Error {
        Error::Transport {
            endpoint: self.http.endpoint(&self.url),
            reason: "it sends another part than the one that was asked for".to_owned(),
        }
    }
}
