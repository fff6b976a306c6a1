//! Reads `multipart/form-data` as it comes: bytes in, events out, nothing gathered but headers.
//!
//! ```
//! # use lxd_proto::multipart::{Event, Limits, Multipart};
//! let mut form = Multipart::new("b", Limits::default())?;
//! form.push("--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nhello\r\n--b--\r\n".into());
//! let Some(Event::Part(head)) = form.next()? else { panic!() };
//! assert_eq!(head.name.as_deref(), Some("x"));
//! assert_eq!(form.next()?, Some(Event::Data("hello".into())));
//! assert_eq!(form.next()?, Some(Event::End));
//! # Ok::<_, lxd_proto::multipart::MultipartError>(())
//! ```

mod head;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use memchr::memmem::Finder;

pub use head::{PartHead, boundary_of, parameter_of};

/// The longest boundary that RFC 2046 allows.
const MAX_BOUNDARY: usize = 70;

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Parts of one form.
    pub parts: usize,
    /// Bytes of the headers of one part.
    pub head: usize,
    /// Bytes before the first part.
    pub preamble: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { parts: 16, head: 16 << 10, preamble: 4 << 10 }
    }
}

/// What comes out of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next part begins; the one before it is complete.
    Part(PartHead),
    /// Bytes of the current part; never empty.
    Data(Bytes),
    /// The form is complete. What comes after is not looked at.
    End,
}

/// Why bytes are no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultipartError {
    /// The boundary itself cannot be one.
    #[error("the boundary of the form is missing or malformed")]
    Boundary,
    /// There are too many parts.
    #[error("the form has more than {0} parts")]
    TooManyParts(usize),
    /// The headers of a part are too large.
    #[error("the headers of a part are larger than {0} bytes")]
    HeadTooLarge(usize),
    /// No part begins where one should.
    #[error("the form does not begin with its boundary")]
    NoBeginning,
    /// Something follows a boundary that may not.
    #[error("a boundary of the form is followed by something else than a line break")]
    AfterBoundary,
    /// A header cannot be read.
    #[error("a part of the form has a malformed header")]
    Header,
    /// The bytes end within the form.
    #[error("the form ends early")]
    Unfinished,
}

/// A reader of one form.
pub struct Multipart {
    /// Line break, two dashes, boundary.
    delimiter: Finder<'static>,
    limits: Limits,
    state: State,
    /// What was pushed and is not read yet.
    chunk: Bytes,
    /// End of the chunks before it that may be the beginning of a delimiter, or a line, or the
    /// headers of a part, by `state`.
    held: Vec<u8>,
    /// Bytes of the form that are read, `held` included.
    read: u64,
    parts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter; so many bytes of it are dropped already.
    Preamble(usize),
    /// Right after a delimiter.
    Line,
    Head,
    Data,
    /// So many bytes are data without a look at them.
    Counted(u64),
    End,
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multipart")
            .field("state", &self.state)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Multipart {
    /// Reads a form with this boundary from its first byte.
    pub fn new(boundary: &str, limits: Limits) -> Result<Self, MultipartError> {
        let mut form = Self::in_state(boundary, limits, State::Preamble(0))?;
        // The first boundary needs no line break before it.
        form.held = b"\r\n".to_vec();
        Ok(form)
    }

    /// Reads on in the middle of the data of a part, `position` bytes into the form. The next
    /// `left` bytes are data whatever they look like; after them the end of the part is looked
    /// for.
    pub fn in_part(
        boundary: &str,
        limits: Limits,
        position: u64,
        left: u64,
    ) -> Result<Self, MultipartError> {
        let mut form = Self::in_state(boundary, limits, State::Counted(left))?;
        form.read = position;
        form.parts = 1;
        Ok(form)
    }

    fn in_state(boundary: &str, limits: Limits, state: State) -> Result<Self, MultipartError> {
        let allowed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let fits = (1..=MAX_BOUNDARY).contains(&boundary.len())
            && boundary.bytes().all(allowed)
            && !boundary.ends_with(' ');
        if !fits {
            return Err(MultipartError::Boundary);
        }
        let delimiter = Finder::new(&format!("\r\n--{boundary}")).into_owned();
        Ok(Self {
            delimiter,
            limits,
            state,
            chunk: Bytes::new(),
            held: Vec::new(),
            read: 0,
            parts: 0,
        })
    }

    /// Adds the next bytes of the form. Take all events before, or bytes are gathered.
    pub fn push(&mut self, bytes: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = bytes;
        } else if !bytes.is_empty() {
            self.chunk = [&self.chunk[..], &bytes].concat().into();
        }
    }

    /// How many bytes of the form lie before what comes next: after [`Event::Part`] the offset
    /// of the part's first byte.
    pub fn position(&self) -> u64 {
        // What is held of a delimiter that may be is not read yet.
        let held = if self.state == State::Data { self.held.len() as u64 } else { 0 };
        self.read - held
    }

    /// How many bytes were pushed that no event has covered.
    pub fn unread(&self) -> usize {
        self.chunk.len()
    }

    /// The next event; `None` wants more bytes.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            let before = (self.chunk.len(), self.state);
            let event = match self.state {
                State::Preamble(_) => self.preamble()?,
                State::Line => self.line()?,
                State::Head => self.head()?,
                State::Data => self.data(),
                State::Counted(left) => self.counted(left),
                State::End => return Ok(None),
            };
            if event.is_some() {
                return Ok(event);
            }
            if before == (self.chunk.len(), self.state) {
                return Ok(None);
            }
        }
    }

    /// Says that no more bytes come.
    pub fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::End => Ok(()),
            State::Preamble(_) => Err(MultipartError::NoBeginning),
            _ => Err(MultipartError::Unfinished),
        }
    }

    /// Takes `count` bytes off the chunk.
    fn take(&mut self, count: usize) -> Bytes {
        self.read += count as u64;
        self.chunk.split_to(count)
    }

    fn preamble(&mut self) -> Result<Option<Event>, MultipartError> {
        let State::Preamble(mut dropped) = self.state else { return Ok(None) };
        if let Some(Event::Data(bytes)) = self.data() {
            dropped += bytes.len();
        }
        if dropped > self.limits.preamble {
            return Err(MultipartError::NoBeginning);
        }
        if self.state != State::Line {
            self.state = State::Preamble(dropped);
        }
        Ok(None)
    }

    /// The rest of the line of a delimiter.
    fn line(&mut self) -> Result<Option<Event>, MultipartError> {
        while !self.chunk.is_empty() {
            let byte = self.take(1)[0];
            self.held.push(byte);
            match self.held.as_slice() {
                b"--" => {
                    self.state = State::End;
                    self.held.clear();
                    return Ok(Some(Event::End));
                }
                [padding @ .., b'\r', b'\n'] if is_padding(padding) => {
                    self.held.clear();
                    self.parts += 1;
                    if self.parts > self.limits.parts {
                        return Err(MultipartError::TooManyParts(self.limits.parts));
                    }
                    self.state = State::Head;
                    return Ok(None);
                }
                b"-" => {}
                [padding @ .., b'\r'] | padding
                    if is_padding(padding) && padding.len() <= self.limits.head => {}
                _ => return Err(MultipartError::AfterBoundary),
            }
        }
        Ok(None)
    }

    fn head(&mut self) -> Result<Option<Event>, MultipartError> {
        // A part without headers begins with the line break that ends them.
        const END: &[u8] = b"\r\n\r\n";
        let fresh = self.held.len();
        let room = self.limits.head.saturating_sub(fresh).min(self.chunk.len());
        let overlap = fresh.min(END.len() - 1);
        let mut window = self.held[fresh - overlap..].to_vec();
        window.extend_from_slice(&self.chunk[..room]);
        let end = if fresh == 0 && self.chunk.starts_with(b"\r\n") {
            Some(2)
        } else if fresh == 1 && self.held == b"\r" && self.chunk.starts_with(b"\n") {
            Some(1)
        } else {
            memchr::memmem::find(&window, END).map(|at| at + END.len() - overlap)
        };
        let taken = self.take(end.unwrap_or(room));
        self.held.extend_from_slice(&taken);
        if end.is_some() {
            let head = PartHead::parse(&self.held)?;
            self.held.clear();
            self.state = State::Data;
            return Ok(Some(Event::Part(head)));
        }
        if self.held.len() >= self.limits.head {
            return Err(MultipartError::HeadTooLarge(self.limits.head));
        }
        Ok(None)
    }

    fn counted(&mut self, left: u64) -> Option<Event> {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.chunk.len());
        let left = left - count as u64;
        self.state = if left == 0 { State::Data } else { State::Counted(left) };
        (count > 0).then(|| Event::Data(self.take(count)))
    }

    /// Bytes up to the next delimiter, or to where one may begin.
    fn data(&mut self) -> Option<Event> {
        if !self.held.is_empty() {
            return self.held_data();
        }
        let delimiter = self.delimiter.needle().len();
        if let Some(at) = self.delimiter.find(&self.chunk) {
            let data = self.take(at);
            self.take(delimiter);
            self.state = State::Line;
            return (!data.is_empty()).then_some(Event::Data(data));
        }
        let tail = beginning(&self.chunk, self.delimiter.needle());
        let data = self.take(self.chunk.len() - tail);
        self.held = self.take(tail).to_vec();
        (!data.is_empty()).then_some(Event::Data(data))
    }

    /// The same where the end of the last chunk may be the beginning of a delimiter.
    fn held_data(&mut self) -> Option<Event> {
        if self.chunk.is_empty() {
            return None;
        }
        let needle = self.delimiter.needle();
        let held = self.held.len();
        let more = (needle.len() - held.min(needle.len())).min(self.chunk.len());
        self.held.extend_from_slice(&self.chunk[..more]);
        if self.held == needle {
            self.held.clear();
            self.take(more);
            self.state = State::Line;
            return None;
        }
        if needle.starts_with(&self.held) {
            self.take(more);
            return None;
        }
        // It was data. What of it may still begin a delimiter stays; the chunk is not touched
        // beyond what was held before.
        let keep = beginning(&self.held, needle);
        let data = self.held.len() - keep;
        if data >= held {
            self.held.truncate(held);
            return Some(Event::Data(std::mem::take(&mut self.held).into()));
        }
        let rest = self.held.split_off(data);
        let bytes = std::mem::replace(&mut self.held, rest);
        self.take(more);
        Some(Event::Data(bytes.into()))
    }
}

/// Blanks that some senders put after a boundary.
fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

/// How many of the last bytes of `text` are the beginning of `needle`, but not all of it.
fn beginning(text: &[u8], needle: &[u8]) -> usize {
    let longest = text.len().min(needle.len() - 1);
    // A delimiter holds one carriage return, so only the last one can begin it.
    match memchr::memrchr(needle[0], &text[text.len() - longest..]) {
        Some(at) => {
            let tail = longest - at;
            if needle.starts_with(&text[text.len() - tail..]) { tail } else { 0 }
        }
        None => 0,
    }
}
