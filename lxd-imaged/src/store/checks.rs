//! A fixed pool of workers that check arriving files behind their writers.
//!
//! A check is a state that is fed what has been written so far and then put aside, so a slow
//! upload holds no worker. Only a few checks are open at once, because an open one holds its
//! decoder's window; one that starves while others wait starts over when its file is complete.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lxd_proto::format::{
    Checker, Compression, FileType, Findings, FormatError, Limits, ReadAt, Role, prove_complete,
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::error::{Error, Result};

/// Bytes read from the file at a time.
const READ: usize = 256 << 10;
/// Bytes a worker reads for one check before it looks at the others.
const TURN: u64 = 1 << 20;
/// Bytes that must be there before an unfinished file's check is opened.
const WORTH_OPENING: u64 = 256 << 10;

/// How far an answer waits for the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// For the whole check, but for xz only until the file is proven complete and its metadata is
    /// known, and for a squashfs of slow compression only until its structure is known to be sound.
    Quick,
    /// For the whole check, whatever the format.
    Whole,
}

/// Runs checks.
#[derive(Debug)]
pub struct CheckPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    /// Checks someone waits for that may be open at once.
    slots: usize,
    next_id: AtomicU64,
}

/// Locked after a check's own state, never before it.
#[derive(Debug, Default)]
struct Queues {
    /// Ready, and someone waits for them.
    urgent: VecDeque<Arc<Check>>,
    /// Ready, and nobody waits: one open check at most.
    background: VecDeque<Arc<Check>>,
    /// Wait for a slot.
    urgent_waiting: VecDeque<Arc<Check>>,
    background_waiting: VecDeque<Arc<Check>>,
    /// Open checks that have read all there is, by id; the oldest gives way first.
    parked: BTreeMap<u64, Box<Progress>>,
    urgent_open: usize,
    background_open: bool,
    closed: bool,
}

/// The check of one file.
pub struct Check {
    id: u64,
    role: Role,
    file: Arc<File>,
    state: Mutex<State>,
    outcome: watch::Sender<Outcome>,
    pool: Arc<Shared>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("role", &self.role).finish_non_exhaustive()
    }
}

struct State {
    written: u64,
    /// No more bytes will come, and how far an answer waits.
    complete: Option<Wanted>,
    /// Nobody is interested any more.
    abandoned: bool,
    /// Gave way once; waits until the file is complete.
    evicted: bool,
    duty: Duty,
    place: Place,
}

/// Whether someone waits for a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// An answer waits.
    Urgent,
    /// No more, but the check still has a slot for urgent ones.
    Relieved,
    /// Nobody waits; if it is open, it has the background slot.
    Background,
}

/// Where a check is.
enum Place {
    /// Not opened, or gave way.
    New,
    /// Waits for a slot, or is with a worker.
    Busy,
    /// In a queue, opened.
    Queued(Box<Progress>),
    /// Opened, waits until `until` bytes are written; the progress is with the pool.
    Parked { until: u64 },
    /// Over.
    Done,
}

struct Progress {
    checker: Checker,
    position: u64,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("position", &self.position).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum Outcome {
    Running,
    /// Enough is known to accept the file, if it is complete.
    Settled(Findings),
    Passed(Findings),
    Refused(Arc<FormatError>),
    Failed(Arc<std::io::Error>),
    Abandoned,
}

impl CheckPool {
    /// A pool of `workers` threads.
    pub fn new(workers: usize) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            work: Condvar::new(),
            slots: workers * 2,
            next_id: AtomicU64::new(0),
        });
        for index in 0..workers {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("check-{index}"))
                .spawn(move || shared.work())?;
        }
        Ok(Arc::new(Self { shared }))
    }

    /// Begins the check of a file that is about to be written.
    pub fn begin(&self, role: Role, file: Arc<File>) -> Arc<Check> {
        Arc::new(Check {
            id: self.shared.next_id.fetch_add(1, Ordering::Relaxed),
            role,
            file,
            state: Mutex::new(State {
                written: 0,
                complete: None,
                abandoned: false,
                evicted: false,
                duty: Duty::Urgent,
                place: Place::New,
            }),
            outcome: watch::Sender::new(Outcome::Running),
            pool: self.shared.clone(),
        })
    }

    /// Checks a file that is complete, with nobody waiting; used after a restart.
    pub fn recheck(&self, role: Role, file: Arc<File>, size: u64) -> Arc<Check> {
        let check = self.begin(role, file);
        check.state.lock().duty = Duty::Background;
        check.complete(size, Wanted::Whole);
        check
    }
}

impl Drop for CheckPool {
    fn drop(&mut self) {
        self.shared.queues.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Check {
    /// The first `written` bytes are in the file.
    pub fn written(self: &Arc<Self>, written: u64) {
        let mut state = self.state.lock();
        state.written = written;
        // Waking a worker for every chunk would cost more than the check.
        if !matches!(state.place, Place::Parked { until } if written < until) {
            self.wake(&mut state);
        }
    }

    /// The file is complete with `size` bytes, and an answer waits as far as `wanted` says.
    pub fn complete(self: &Arc<Self>, size: u64, wanted: Wanted) {
        let mut state = self.state.lock();
        state.written = size;
        state.complete = Some(wanted);
        self.wake(&mut state);
    }

    /// Nobody is interested any more, and the file goes.
    pub fn abandon(&self) {
        self.outcome.send_replace(Outcome::Abandoned);
        let mut state = self.state.lock();
        state.abandoned = true;
        if matches!(state.place, Place::Parked { .. }) {
            state.place = Place::Done;
            let held_slot = self.pool.queues.lock().parked.remove(&self.id).is_some();
            drop(state);
            if held_slot {
                self.pool.release(false);
            }
        }
    }

    /// The reason, if the file has already been refused.
    pub fn refused(&self) -> Result<()> {
        match &*self.outcome.borrow() {
            Outcome::Refused(error) => Err(Error::Format(error.clone())),
            Outcome::Failed(error) => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// What was found about a complete file, and whether that is final.
    pub async fn verdict(&self, wanted: Wanted) -> Result<(Findings, bool)> {
        let mut outcome = self.outcome.subscribe();
        loop {
            let seen = outcome.borrow_and_update().clone();
            match seen {
                Outcome::Passed(findings) => return Ok((findings, true)),
                Outcome::Refused(error) => return Err(Error::Format(error)),
                Outcome::Failed(error) => return Err(failed(&error)),
                Outcome::Abandoned => return Err(Error::Cancelled),
                Outcome::Settled(findings) if wanted == Wanted::Quick => {
                    if findings.file_type == FileType::Tar(Compression::Xz) {
                        self.prove_complete().await?;
                    }
                    self.go_to_background();
                    return Ok((findings, false));
                }
                Outcome::Running | Outcome::Settled(_) => {}
            }
            if outcome.changed().await.is_err() {
                return Err(Error::ShuttingDown);
            }
        }
    }

    /// Whether an xz file ends as it should: footer, index and sizes.
    async fn prove_complete(&self) -> Result<()> {
        let file = self.file.clone();
        let proof = tokio::task::spawn_blocking(move || prove_complete(&*file)).await;
        proof.map_err(|error| Error::Internal(error.to_string()))??;
        Ok(())
    }

    fn go_to_background(&self) {
        let mut state = self.state.lock();
        if state.duty == Duty::Urgent {
            state.duty = Duty::Relieved;
        }
    }

    /// Queues the check if there is something to do for it.
    fn wake(self: &Arc<Self>, state: &mut State) {
        if matches!(state.place, Place::Parked { .. }) {
            let mut queues = self.pool.queues.lock();
            if let Some(progress) = queues.parked.remove(&self.id) {
                state.place = Place::Queued(progress);
                queues.urgent.push_back(self.clone());
                drop(queues);
                self.pool.work.notify_one();
                return;
            }
            state.evicted = true;
            state.place = Place::New;
        }
        let worth = state.complete.is_some() || (!state.evicted && state.written >= WORTH_OPENING);
        if worth && matches!(state.place, Place::New) {
            self.pool.open(self, state);
        }
    }

    /// One turn of a worker.
    fn turn(self: &Arc<Self>, buffer: &mut [u8]) {
        let mut progress = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut state.place, Place::Busy) {
                Place::Queued(progress) => progress,
                other => {
                    state.place = other;
                    return;
                }
            }
        };
        let mut budget = TURN;
        loop {
            let (written, complete, abandoned) = {
                let state = self.state.lock();
                (state.written, state.complete.is_some(), state.abandoned)
            };
            if abandoned {
                return self.end(None);
            }
            if let Err(outcome) = self.advance(&mut progress, written, &mut budget, buffer) {
                return self.end(Some(outcome));
            }
            if progress.position < written {
                if self.may_go_on() {
                    budget = TURN;
                    continue;
                }
                return self.queue_again(progress);
            }
            if complete {
                if self.structure_is_enough(&progress.checker) {
                    match self.structure(written) {
                        Ok(findings) => self.settle(findings),
                        Err(error) => return self.end(Some(Outcome::Refused(Arc::new(error)))),
                    }
                    self.go_to_background();
                    return self.queue_again(progress);
                }
                let outcome = match progress.checker.finish(&*self.file) {
                    Ok(findings) => Outcome::Passed(findings),
                    Err(error) => Outcome::Refused(Arc::new(error)),
                };
                return self.end(Some(outcome));
            }
            match self.park(progress) {
                Some(again) => progress = again,
                None => return,
            }
        }
    }

    /// Whether nobody else waits for a worker: another one would have to fetch the decoder's
    /// window into its cache.
    fn may_go_on(&self) -> bool {
        let state = self.state.lock();
        let queues = self.pool.queues.lock();
        state.duty != Duty::Relieved && queues.urgent.is_empty() && queues.background.is_empty()
    }

    /// More bytes are there, but it is the others' turn.
    fn queue_again(self: &Arc<Self>, progress: Box<Progress>) {
        let mut state = self.state.lock();
        let mut queues = self.pool.queues.lock();
        if state.duty != Duty::Relieved {
            state.place = Place::Queued(progress);
            queues.push(self.clone(), state.duty);
        } else if queues.background_open {
            // Only one check is open in the background; this one starts over in its turn.
            state.duty = Duty::Background;
            state.place = Place::Busy;
            queues.background_waiting.push_back(self.clone());
            drop((state, queues));
            return self.pool.release(false);
        } else {
            queues.background_open = true;
            state.duty = Duty::Background;
            state.place = Place::Queued(progress);
            queues.push(self.clone(), Duty::Background);
            drop((state, queues));
            self.pool.release(false);
        }
        self.pool.work.notify_one();
    }

    /// Feeds what is there, up to `written` and `budget`.
    fn advance(
        &self,
        progress: &mut Progress,
        written: u64,
        budget: &mut u64,
        buffer: &mut [u8],
    ) -> Result<(), Outcome> {
        while progress.position < written && *budget > 0 {
            let skip = progress.checker.skippable().min(written - progress.position);
            if skip > 0 {
                let skipped = progress.checker.skip(skip);
                skipped.map_err(|error| Outcome::Refused(Arc::new(error)))?;
                progress.position += skip;
                continue;
            }
            let wanted = usize::try_from(written - progress.position).unwrap_or(usize::MAX);
            let wanted = wanted.min(buffer.len());
            let read = self
                .file
                .read_at(&mut buffer[..wanted], progress.position)
                .map_err(|error| Outcome::Failed(Arc::new(error)))?;
            if read == 0 {
                let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(Outcome::Failed(Arc::new(error)));
            }
            let fed = progress.checker.feed(&buffer[..read]);
            fed.map_err(|error| Outcome::Refused(Arc::new(error)))?;
            progress.position += read as u64;
            *budget = budget.saturating_sub(read as u64);
        }
        self.tell_if_settled(&progress.checker);
        Ok(())
    }

    /// An xz archive whose metadata has been read can be accepted while the rest is decoded.
    fn tell_if_settled(&self, checker: &Checker) {
        let known = checker.known();
        if let (true, Some(file_type @ FileType::Tar(Compression::Xz))) =
            (known.settled, known.file_type)
            && matches!(*self.outcome.borrow(), Outcome::Running)
        {
            self.settle(Findings {
                file_type,
                metadata: known.metadata.cloned(),
                kind: known.kind,
                entries: 0,
                unpacked_bytes: 0,
            });
        }
    }

    fn settle(&self, findings: Findings) {
        self.outcome.send_replace(Outcome::Settled(findings));
    }

    /// Whether an answer waits that needs no more than the structure of a slow squashfs.
    fn structure_is_enough(&self, checker: &Checker) -> bool {
        let known = checker.known();
        let state = self.state.lock();
        known.slow
            && known.file_type == Some(FileType::Squashfs)
            && state.complete == Some(Wanted::Quick)
            && state.duty == Duty::Urgent
    }

    fn structure(&self, written: u64) -> Result<Findings, FormatError> {
        let mut checker = Checker::new(self.role, Limits::default()).verify_data(false);
        let length = FileType::DETECT_BYTES.min(usize::try_from(written).unwrap_or(usize::MAX));
        let mut head = vec![0; length];
        ReadAt::read_exact_at(&*self.file, &mut head, 0)?;
        checker.feed(&head)?;
        checker.finish(&*self.file)
    }

    /// Puts the check aside until more is written; gives it back if that has happened already.
    fn park(&self, progress: Box<Progress>) -> Option<Box<Progress>> {
        let mut state = self.state.lock();
        if state.complete.is_some() || state.abandoned || state.written > progress.position {
            return Some(progress);
        }
        let mut queues = self.pool.queues.lock();
        if queues.urgent_waiting.is_empty() {
            let enough = progress.checker.skippable().max(READ as u64);
            state.place = Place::Parked { until: progress.position.saturating_add(enough) };
            queues.parked.insert(self.id, progress);
            return None;
        }
        // Gives its slot, and the decoder's window, to one that can go on.
        state.evicted = true;
        state.place = Place::New;
        drop((state, queues));
        self.pool.release(false);
        None
    }

    fn end(&self, outcome: Option<Outcome>) {
        let duty = {
            let mut state = self.state.lock();
            state.place = Place::Done;
            state.duty
        };
        self.pool.release(duty == Duty::Background);
        if let Some(outcome) = outcome {
            self.outcome.send_replace(outcome);
        }
    }
}

impl Shared {
    /// Opens the check if a slot is free or can be freed, else lets it wait for one. The caller
    /// holds its state.
    fn open(&self, check: &Arc<Check>, state: &mut State) {
        let mut queues = self.queues.lock();
        let background = state.duty == Duty::Background;
        let free = if background {
            !std::mem::replace(&mut queues.background_open, true)
        } else if queues.urgent_open < self.slots {
            queues.urgent_open += 1;
            true
        } else {
            // One that only waits for bytes gives way: its slot is taken over.
            queues.parked.pop_first().is_some()
        };
        if free {
            state.place = Place::Queued(Box::new(check.fresh()));
            queues.push(check.clone(), state.duty);
            drop(queues);
            self.work.notify_one();
        } else {
            state.place = Place::Busy;
            let waiting = if background {
                &mut queues.background_waiting
            } else {
                &mut queues.urgent_waiting
            };
            waiting.push_back(check.clone());
        }
    }

    /// A slot is free: the next check that waits for one of its kind takes it.
    fn release(&self, background: bool) {
        loop {
            let next = {
                let mut queues = self.queues.lock();
                let next = if background {
                    queues.background_waiting.pop_front()
                } else {
                    queues.urgent_waiting.pop_front()
                };
                match next {
                    Some(next) => next,
                    None if background => {
                        queues.background_open = false;
                        return;
                    }
                    None => {
                        queues.urgent_open -= 1;
                        return;
                    }
                }
            };
            let mut state = next.state.lock();
            if state.abandoned {
                state.place = Place::Done;
                continue;
            }
            state.place = Place::Queued(Box::new(next.fresh()));
            self.queues.lock().push(next.clone(), state.duty);
            self.work.notify_one();
            return;
        }
    }

    fn work(&self) {
        let mut buffer = vec![0; READ];
        loop {
            let check = {
                let mut queues = self.queues.lock();
                loop {
                    if queues.closed {
                        return;
                    }
                    match queues.urgent.pop_front().or_else(|| queues.background.pop_front()) {
                        Some(check) => break check,
                        None => self.work.wait(&mut queues),
                    }
                }
            };
            check.turn(&mut buffer);
        }
    }
}

impl Queues {
    fn push(&mut self, check: Arc<Check>, duty: Duty) {
        match duty {
            Duty::Background => self.background.push_back(check),
            Duty::Urgent | Duty::Relieved => self.urgent.push_back(check),
        }
    }
}

impl Check {
    fn fresh(&self) -> Progress {
        Progress { checker: Checker::new(self.role, Limits::default()), position: 0 }
    }
}

fn failed(error: &std::io::Error) -> Error {
    Error::Internal(format!("cannot read back the image file: {error}"))
}

#[cfg(test)]
mod tests;
