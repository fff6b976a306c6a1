//! One file of a web server as one stream of bytes, however often the connection is cut.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use crate::net::Http;
use crate::net::backoff::pause;
use crate::net::client::header_map;
use crate::net::head::Head;
use crate::net::ranges::{PARALLEL_FROM, Ranges};
use crate::net::trickle::Trickle;
use crate::remote::{Error, Result};

/// Reconnections of one download, however much each of them brought.
const MAX_CUTS: u32 = 1000;
/// A server that begins from the start each time may get no further for so many times the
/// attempts that one gets which brings nothing at all.
const FRUITLESS: u32 = 3;
/// A gap of so many bytes is read and dropped rather than jumped over with a new request.
const SHORT_GAP: u64 = 256 << 10;
/// Bytes after the last wanted one that are read for the sake of the connection.
const SETTLED: usize = 4 << 10;
/// How long that may take.
const SETTLING: Duration = Duration::from_millis(100);
/// A server that answers slower than this is far away: parallel requests pay.
const FAR: Duration = Duration::from_millis(10);

/// How to download a file.
#[derive(Debug, Clone, Default)]
pub struct DownloadOptions {
    /// Headers of our own.
    pub headers: Vec<(String, String)>,
    /// The exact length, where somebody has told it; the server may not differ.
    pub length: Option<u64>,
    /// At most so many bytes; `None` takes the limit of [`crate::net::Limits`].
    pub most: Option<u64>,
    /// The first byte that is wanted, where a part is there already.
    pub from: u64,
}

/// What comes of a download.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// The connection was cut and the server cannot begin in the middle: from here on the file
    /// comes again from its first byte. [`Download::head`] may have changed.
    Again,
    /// All bytes have come.
    End,
}

/// One file as one stream of bytes. Dropping it ends the transfer at once.
pub struct Download {
    pub(super) http: Http,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    options: DownloadOptions,
    most: u64,
    head: Head,
    pub(super) validator: Option<HeaderValue>,
    takes_ranges: bool,
    /// It said so, but it was not true.
    disappointed: bool,
    /// Length of the whole file.
    length: Option<u64>,
    response: Option<Response>,
    ranges: Option<Ranges>,
    /// Whether parallel ranges have not disappointed yet.
    may_parallel: bool,
    /// The byte that `response` will bring next.
    position: u64,
    /// The byte that is to be handed out next; what comes before it is dropped.
    wanted: u64,
    /// The highest `wanted` so far: only what goes beyond it is progress.
    furthest: u64,
    /// Attempts since the last byte.
    failures: u32,
    /// Attempts since the last progress.
    fruitless: u32,
    cuts: u32,
    trickle: Trickle,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("file", &self.http.name(&self.url))
            .field("wanted", &self.wanted)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Download {
    pub(crate) async fn open(http: Http, url: Url, options: DownloadOptions) -> Result<Self> {
        let pairs: Vec<_> =
            options.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let headers = header_map(&pairs)?;
        let most = options.length.or(options.most).unwrap_or(http.limits.max_file);
        let from = options.from;
        let mut download = Self {
            http,
            url,
            headers,
            options,
            most,
            head: Head::none(),
            validator: None,
            takes_ranges: from > 0,
            disappointed: false,
            length: None,
            response: None,
            ranges: None,
            may_parallel: true,
            position: 0,
            wanted: from,
            furthest: from,
            failures: 0,
            fruitless: 0,
            cuts: 0,
            trickle: Trickle::default(),
        };
        loop {
            match download.request().await {
                Ok(()) => return Ok(download),
                // Nobody there is told at once; a server that asks for patience gets some.
                Err(
                    error @ (Error::Connect { .. } | Error::Tls { .. } | Error::Handshake { .. }),
                ) => return Err(error),
                Err(error) => download.wait_after(error).await?,
            }
        }
    }

    /// Status and headers of the first answer, or of the last one that began anew.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The length of the whole file, where it is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the server can begin in the middle of the file, as far as is known.
    pub fn takes_ranges(&self) -> bool {
        self.takes_ranges
    }

    /// Which byte [`Self::next`] hands out next.
    #[allow(clippy::misnamed_getters)] // The field of that name is where the connection is.
    pub fn position(&self) -> u64 {
        self.wanted
    }

    /// Goes on at byte `offset`, which may not lie before [`Self::position`].
    pub fn skip_to(&mut self, offset: u64) {
        let offset = offset.max(self.wanted);
        if offset - self.wanted > SHORT_GAP && self.takes_ranges {
            self.response = None;
            self.ranges = None;
        }
        self.wanted = offset;
    }

    /// The next bytes, in order and each once; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let wanted = self.wanted;
            match self.piece().await? {
                Piece::Bytes(bytes) => return Ok(Some(bytes)),
                Piece::End => return Ok(None),
                Piece::Again => self.wanted = wanted,
            }
        }
    }

    /// The next bytes; unlike [`Self::next`] it tells when the file comes again from its start.
    pub async fn piece(&mut self) -> Result<Piece> {
        loop {
            if self.length.is_some_and(|length| self.wanted >= length) {
                return Ok(Piece::End);
            }
            match self.step().await {
                Ok(Some(Piece::Bytes(bytes))) => {
                    if let Some(bytes) = self.take(bytes)? {
                        return Ok(Piece::Bytes(bytes));
                    }
                }
                Ok(Some(Piece::Again)) => {
                    self.wanted = 0;
                    return Ok(Piece::Again);
                }
                Ok(Some(Piece::End)) => return Ok(Piece::End),
                Ok(None) => {}
                Err(error) => {
                    self.response = None;
                    self.ranges = None;
                    self.wait_after(error).await?;
                }
            }
        }
    }

    /// Reads the few bytes that may still come, so that the connection can be used again. What
    /// happens meanwhile does not matter.
    pub(crate) async fn settle(mut self) {
        let Some(mut response) = self.response.take() else { return };
        let drain = async {
            let mut read = 0;
            while read < SETTLED
                && let Ok(Some(bytes)) = self.http.chunk(&mut response).await
            {
                read += bytes.len();
            }
        };
        // A server that is slow to end gets another connection the next time.
        let _ = tokio::time::timeout(SETTLING, drain).await;
    }

    /// One answer, one chunk, or the end.
    async fn step(&mut self) -> Result<Option<Piece>> {
        if let Some(ranges) = &mut self.ranges
            && self.response.is_none()
        {
            match ranges.next().await {
                Ok(Some(bytes)) => return Ok(Some(Piece::Bytes(bytes))),
                Ok(None) => {
                    self.ranges = None;
                    return Ok(None);
                }
                Err(error) => {
                    self.may_parallel = false;
                    return Err(error);
                }
            }
        }
        let Some(response) = &mut self.response else {
            self.request().await?;
            return Ok((self.position < self.wanted).then_some(Piece::Again));
        };
        if let Some(bytes) = self.http.next_of(response, &mut self.trickle).await? {
            return Ok(Some(Piece::Bytes(bytes)));
        }
        let missing = self.length.unwrap_or(self.furthest).saturating_sub(self.position);
        if missing > 0 {
            let reason = format!("it ended {missing} bytes early");
            return Err(Error::Transport { endpoint: self.http.endpoint(&self.url), reason });
        }
        self.length = Some(self.position);
        self.check_length()?;
        Ok(Some(Piece::End))
    }

    /// Of bytes that have come those that are wanted.
    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>> {
        self.failures = 0;
        let end = self.position + bytes.len() as u64;
        if end > self.length.unwrap_or(self.most).min(self.most) {
            let reason = format!("it sends more than {} bytes", self.most);
            return Err(Error::Size { what: self.http.name(&self.url), reason });
        }
        let dropped = self.wanted.saturating_sub(self.position).min(bytes.len() as u64);
        self.position = end;
        // What was read ahead in parallel begins where the first stream ends.
        if self.ranges.as_ref().is_some_and(|ranges| end >= ranges.begins_at())
            && self.response.take().is_some()
        {
            let begins_at = self.ranges.as_ref().map_or(end, Ranges::begins_at);
            let over = end - begins_at;
            bytes.truncate(bytes.len() - usize::try_from(over).unwrap_or(0).min(bytes.len()));
            self.position = begins_at;
        }
        let dropped = usize::try_from(dropped).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.split_off(dropped);
        if bytes.is_empty() {
            return Ok(None);
        }
        self.wanted += bytes.len() as u64;
        if self.wanted > self.furthest {
            self.furthest = self.wanted;
            self.fruitless = 0;
        }
        Ok(Some(bytes))
    }

    /// Asks for the file from `wanted` on. Where the server cannot begin there, `position` is
    /// less than `wanted` afterwards.
    async fn request(&mut self) -> Result<()> {
        let resumed = self.wanted > 0 && self.takes_ranges;
        let mut headers = self.headers.clone();
        if resumed {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.wanted));
            headers.insert(RANGE, range.unwrap_or_else(|_| HeaderValue::from_static("bytes=0-")));
            if let Some(validator) = &self.validator {
                headers.insert(IF_RANGE, validator.clone());
            }
        }
        let asked = Instant::now();
        let response = self.http.follow(Method::GET, &self.url, &headers).await?;
        let far = asked.elapsed() > FAR;
        if resumed && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return self.unsatisfiable();
        }
        let response = self.http.success(response).await?;
        let head = Head::of(&response);
        match (head.status, resumed) {
            (206, true) => self.resume(&head)?,
            (206, false) => {
                let reason = "it sends a part although the whole was asked for".to_owned();
                return Err(Error::Decode { what: self.http.name(&self.url), reason });
            }
            _ => self.restart(&head)?,
        }
        self.response = Some(response);
        if far {
            self.read_ahead();
        }
        Ok(())
    }

    /// Takes up a part that begins where we stopped.
    fn resume(&mut self, head: &Head) -> Result<()> {
        let fits = head.content_range().is_some_and(|range| {
            range.first == self.wanted
                && (self.length.is_none() || range.total.is_none() || range.total == self.length)
                && range.total.is_none_or(|total| range.last + 1 == total)
        });
        if !fits || self.contradicts(head) {
            // Its ranges cannot be relied on: from the start, then.
            self.disappoint();
            let reason = "it sends another part than the one that was asked for".to_owned();
            return Err(Error::Transport { endpoint: self.http.endpoint(&self.url), reason });
        }
        if self.length.is_none() {
            self.length = head.length();
            self.check_length()?;
        }
        if self.head.status == 0 {
            self.validator = head.validator();
            self.head = head.clone();
        }
        self.position = self.wanted;
        Ok(())
    }

    /// Whether an answer names another version than the one we have begun with.
    fn contradicts(&self, head: &Head) -> bool {
        self.validator.as_ref().is_some_and(|ours| head.is_another_version(ours))
    }

    /// Takes the file from its start.
    fn restart(&mut self, head: &Head) -> Result<()> {
        let changed = self.contradicts(head)
            || self.length.is_some() && head.length().is_some() && self.length != head.length();
        if changed && self.wanted > 0 {
            return Err(Error::Changed { what: self.http.name(&self.url) });
        }
        self.takes_ranges = head.takes_ranges() && !self.disappointed;
        self.validator = head.validator();
        self.length = head.length();
        self.head = head.clone();
        self.position = 0;
        self.check_length()
    }

    /// There is nothing where we want to go on: all is there, or the file is another one.
    fn unsatisfiable(&mut self) -> Result<()> {
        if self.length == Some(self.wanted) || self.options.length == Some(self.wanted) {
            self.length = Some(self.wanted);
            self.position = self.wanted;
            return Ok(());
        }
        self.disappoint();
        let reason = "it has no such part of the file".to_owned();
        Err(Error::Transport { endpoint: self.http.endpoint(&self.url), reason })
    }

    /// A server that has once sent a wrong part is not asked for parts again.
    fn disappoint(&mut self) {
        self.takes_ranges = false;
        self.disappointed = true;
    }

    fn check_length(&self) -> Result<()> {
        let Some(length) = self.length else { return Ok(()) };
        let what = || self.http.name(&self.url);
        match self.options.length {
            Some(expected) if expected != length => {
                let reason = format!("it has {length} bytes at the server, {expected} expected");
                Err(Error::Size { what: what(), reason })
            }
            _ if length > self.most => {
                let reason = format!("{length} bytes are more than the {} allowed", self.most);
                Err(Error::Size { what: what(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Reads ahead in parallel where the rest is long and the way is.
    fn read_ahead(&mut self) {
        let Some(length) = self.length else { return };
        let limit = self.http.limits.parallel;
        if limit > 1
            && self.takes_ranges
            && self.may_parallel
            && length - self.wanted.min(length) >= PARALLEL_FROM
        {
            self.ranges = Some(Ranges::ahead(self, length, limit));
        }
    }

    /// Decides whether to go on after a failure, and waits before that.
    async fn wait_after(&mut self, error: Error) -> Result<()> {
        // Something in between that has lost its server answers with no TLS, or hangs up.
        let lost = self.head.status != 0 && matches!(error, Error::Handshake { .. });
        if !lost && !is_passing(&error) {
            return Err(error);
        }
        self.failures += 1;
        self.fruitless += 1;
        self.cuts += 1;
        let retries = self.http.limits.retries;
        let most = retries.saturating_mul(FRUITLESS);
        if self.failures > retries || self.fruitless > most || self.cuts > MAX_CUTS {
            return Err(error);
        }
        tracing::debug!(file = self.http.name(&self.url), at = self.wanted, %error, "asking again");
        tokio::time::sleep(pause(self.http.limits.backoff, self.failures)).await;
        Ok(())
    }
}

/// Whether the same request may succeed in a while.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Transport { .. } => true,
        Error::Api { status, .. } => matches!(status, 408 | 425 | 429 | 502 | 503 | 504),
        _ => false,
    }
}
