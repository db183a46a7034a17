//! Certificates that are replaced on disk are taken up while everything runs.
//!
//! A thread of its own looks at the files: soon after the kernel has said that something happened in
//! their folders, and every `POLL` in any case, since file systems that lie elsewhere say nothing.
//! Reading, parsing and signing once to see that a key belongs to its certificate disturb nobody
//! there. A pair that does not load leaves the one before in place, is said once, and counted. What is
//! published is for the next handshake: connections go on, and sessions are resumed.
//!
//! `server` says what is watched, at the start and whenever the configuration changes.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::certificates::{Certificate, CertificateError, CertificateSet, load};
use super::contents::Contents;
use super::expiry::{Nearness, nearness};
use crate::config::CertificateFiles;
use crate::events::journal::{Journal, Kind, What};
use crate::io::folders::Folders;
use crate::published::Published;
use crate::telemetry::date::Rfc3339;
use crate::telemetry::metrics::CertificateFilesSample;

/// Time between two looks of which nobody has said that there is something to see.
const POLL: Duration = Duration::from_secs(10);

/// From the first thing that happens until the look: who replaces a certificate and then its key is
/// done by then, as a rule.
const SETTLING: Duration = Duration::from_millis(250);

/// The certificates of one listener.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Their files, in the order of the configuration.
    pub files: Vec<CertificateFiles>,
    /// Those of certificates that are ordered: they may not be there yet.
    pub ordered: Vec<CertificateFiles>,
    /// Where handshakes find them.
    pub published: Arc<Published<CertificateSet>>,
}

/// Files by which clients or backends are judged, and what they are shown. Whoever has loaded them is told
/// when they change, and at each look until it has loaded what is there.
#[derive(Debug, Clone)]
pub struct Judging {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What was in them when they were loaded.
    pub loaded: Contents,
}

/// All that is watched.
#[derive(Debug, Clone, Default)]
pub struct WatchList {
    /// Certificates that are taken up here.
    pub listeners: Vec<Watched>,
    /// Files that somebody else takes up.
    pub judging: Vec<Judging>,
}

/// What has been taken up, and what could not.
#[derive(Debug, Default)]
struct Counts {
    /// Certificates that took another one's place.
    replaced: AtomicU64,
    /// Contents of files that could not be used.
    refused: AtomicU64,
    /// Pairs of files that cannot be used as they are now.
    unusable: AtomicU64,
    /// What happens is told to it.
    journal: Arc<Journal>,
}

/// The way to the thread that looks. Dropped, the thread ends.
#[derive(Debug)]
pub struct CertificateWatch {
    lists: Sender<WatchList>,
    /// A byte in it says that there is a list, its end that there will be none any more.
    wake: PipeWriter,
    counts: Arc<Counts>,
}

impl CertificateWatch {
    /// Starts the thread, which watches nothing yet. `changed` is told of those [`Judging`], and
    /// `journal` of what happens.
    pub fn start(changed: mpsc::Sender<()>, journal: Arc<Journal>) -> io::Result<CertificateWatch> {
        let (lists, listed) = channel();
        let (woken, wake) = io::pipe()?;
        let counts = Arc::new(Counts {
            journal,
            ..Counts::default()
        });
        let counted = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("certificates".to_owned());
        thread.spawn(move || run(&listed, woken, &counted, &changed))?;
        Ok(CertificateWatch {
            lists,
            wake,
            counts,
        })
    }

    /// From now on these are watched, and no others. They are looked at at once.
    pub fn set(&self, watched: WatchList) {
        // Either fails only when the thread has gone, and has said so.
        let _ = self.lists.send(watched);
        let _ = (&self.wake).write(&[0]);
    }

    /// What has been taken up, and what could not.
    pub fn counted(&self) -> CertificateFilesSample {
        // Relaxed: each stands for itself.
        let Counts {
            replaced,
            refused,
            unusable,
            ..
        } = &*self.counts;
        CertificateFilesSample {
            replaced: replaced.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
            unusable: unusable.load(Ordering::Relaxed),
        }
    }
}

impl Counts {
    fn tell(&self, kind: Kind, file: &Path, text: String) {
        self.journal.record(What {
            name: Some(file.display().to_string().into()),
            ..What::new(kind, text)
        });
    }
}

fn run(
    lists: &Receiver<WatchList>,
    mut woken: PipeReader,
    counts: &Counts,
    changed: &mpsc::Sender<()>,
) {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut judging: Vec<Judging> = Vec::new();
    let mut folders = Folders::new()
        .inspect_err(|error| {
            let every = POLL.as_secs();
            tracing::warn!(%error, "the kernel does not say when certificates change: they are looked at every {every} s");
        })
        .ok();
    let mut due = Instant::now() + POLL;
    loop {
        match wait(folders.as_ref(), &woken, due) {
            Ok(Woken::Due) => {}
            Ok(Woken::Something) => {
                if folders.as_mut().is_some_and(Folders::take) {
                    due = due.min(Instant::now() + SETTLING);
                }
                continue;
            }
            Ok(Woken::Told) => {
                // How many bytes there are says nothing: each list counts.
                let _ = woken.read(&mut [0; 64]);
                match newest(lists) {
                    Ok(Some(list)) => {
                        let before = std::mem::take(&mut listeners);
                        let after = |watched| Listener::new(watched, &before);
                        listeners = list.listeners.into_iter().map(after).collect();
                        judging = list.judging;
                    }
                    Ok(None) => continue,
                    Err(Gone) => return,
                }
            }
            Err(error) => return tracing::error!(%error, "certificates are not watched any more"),
        }
        // Before the files are read: what happens from here on is heard of.
        if let Some(folders) = &mut folders {
            let judging = judging.iter().flat_map(|j| &j.files);
            let files = listeners.iter().flat_map(Listener::files);
            folders.watch(files.chain(judging.map(PathBuf::as_path)));
        }
        let now = SystemTime::now();
        listeners.iter_mut().for_each(|l| l.look(now, counts));
        // Whoever is told looks at all of them, and is told again until it has loaded them. While it has
        // not heard yet, once is enough.
        if judging.iter().any(Judging::differs) {
            let _ = changed.try_send(());
        }
        let pairs = listeners.iter().flat_map(|l| &l.pairs);
        let unusable = pairs.filter(|pair| pair.is_unusable).count();
        counts.unusable.store(unusable as u64, Ordering::Relaxed);
        due = Instant::now() + POLL;
    }
}

/// Why a wait is over.
enum Woken {
    /// It is time.
    Due,
    /// Something has happened in a folder.
    Something,
    /// There is another list, or there will be none any more.
    Told,
}

fn wait(folders: Option<&Folders>, woken: &PipeReader, due: Instant) -> io::Result<Woken> {
    let left = due.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut ends = vec![PollFd::new(woken, PollFlags::IN)];
    ends.extend(folders.map(|folders| PollFd::new(folders, PollFlags::IN)));
    match poll(&mut ends, Some(&left)) {
        Ok(_) if !ends[0].revents().is_empty() => Ok(Woken::Told),
        Ok(0) => Ok(Woken::Due),
        // A signal that came to this thread is as good as something that turns out to be nothing.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(Woken::Something),
        Err(error) => Err(error.into()),
    }
}

/// Nobody is left who could say what is to be watched.
struct Gone;

/// The last list of those that wait; `None`: there is none.
fn newest(lists: &Receiver<WatchList>) -> Result<Option<WatchList>, Gone> {
    let mut newest = None;
    loop {
        match lists.try_recv() {
            Ok(list) => newest = Some(list),
            Err(TryRecvError::Empty) => return Ok(newest),
            Err(TryRecvError::Disconnected) => return Err(Gone),
        }
    }
}

impl Judging {
    /// Is there something else in the files than what was loaded?
    fn differs(&self) -> bool {
        Contents::of(self.files.iter().map(PathBuf::as_path)) != self.loaded
    }
}

/// A listener, and what is known of its files.
struct Listener {
    name: Arc<str>,
    pairs: Vec<Pair>,
    published: Arc<Published<CertificateSet>>,
}

#[derive(Clone)]
struct Pair {
    files: CertificateFiles,
    /// They may not be there yet.
    is_ordered: bool,
    /// What was in the files when they were last judged.
    judged: Option<Contents>,
    /// And could not be used.
    is_unusable: bool,
    /// What was in force at the last look.
    in_force: Option<Certificate>,
    /// Until when the certificate is valid, and how near that was said to be.
    said: Option<(SystemTime, Nearness)>,
}

impl Listener {
    /// What is known of its files goes on from `before`, those of the configuration before: what was said
    /// is not said again.
    fn new(watched: Watched, before: &[Listener]) -> Listener {
        let before = before.iter().find(|l| l.name == watched.listener);
        let known = before.map_or(&[][..], |listener| &listener.pairs);
        let pair = |(files, is_ordered)| {
            let known = known.iter().find(|pair| pair.files == files);
            let known = known.filter(|pair| pair.is_ordered == is_ordered);
            known.cloned().unwrap_or(Pair {
                files,
                is_ordered,
                judged: None,
                is_unusable: false,
                in_force: None,
                said: None,
            })
        };
        let files = watched.files.into_iter().map(|files| (files, false));
        let ordered = watched.ordered.into_iter().map(|files| (files, true));
        Listener {
            name: watched.listener,
            pairs: files.chain(ordered).map(pair).collect(),
            published: watched.published,
        }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs.iter();
        pairs.flat_map(|pair| [pair.files.cert.as_path(), pair.files.key.as_path()])
    }

    /// Publishes a new set if a pair has changed and can be used.
    fn look(&mut self, now: SystemTime, counts: &Counts) {
        let set = self.published.load();
        let mut certificates = Vec::with_capacity(self.pairs.len());
        let mut changed = false;
        for pair in &mut self.pairs {
            let mut all = set.certificates().iter();
            let held = all.find(|certificate| *certificate.files() == pair.files);
            pair.say_swapped(held, &self.name, now, counts);
            let taken = pair.look(held, &self.name, now, counts);
            changed |= taken.is_some();
            let certificate = taken.or_else(|| held.cloned());
            pair.in_force.clone_from(&certificate);
            if let Some(certificate) = &certificate {
                pair.say_nearness(certificate, &self.name, now, counts);
            }
            certificates.extend(certificate);
        }
        if !changed {
            return;
        }
        if certificates.len() < self.pairs.len() {
            let mut all = set.certificates().iter();
            certificates.extend(all.find(|c| c.is_stand_in()).cloned());
        }
        match CertificateSet::new(certificates) {
            Ok(set) => self.published.publish(set),
            Err(error) => tracing::error!(listener = %self.name, %error, "certificates stay"),
        }
    }
}

impl Pair {
    /// The certificate that takes the place of `held`, if there is one that can.
    fn look(
        &mut self,
        held: Option<&Certificate>,
        listener: &str,
        now: SystemTime,
        counts: &Counts,
    ) -> Option<Certificate> {
        // Read once more when they are judged: if they have changed by then, they differ from what is
        // remembered here, and are judged again at the next look.
        let contents = Contents::of([self.files.cert.as_path(), self.files.key.as_path()]);
        if self.judged.replace(contents) == Some(contents) {
            return None;
        }
        let found = load(&self.files);
        let is_awaited = self.is_ordered && found.as_ref().is_err_and(CertificateError::is_missing);
        self.is_unusable = found.is_err() && !is_awaited;
        match found {
            Err(_) if is_awaited => None,
            Ok(found) if held.is_some_and(|held| held.is_same(&found)) => None,
            Ok(found) => {
                self.say_replaced(&found, listener, now, counts);
                Some(found)
            }
            Err(error) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(listener, "the certificate stays as it was: {error}");
                let text = format!("listener {listener}: the certificate stays as it was: {error}");
                counts.tell(Kind::CertificateFailed, &self.files.cert, text);
                None
            }
        }
    }

    /// Whoever read the configuration again may have taken another certificate up with it.
    fn say_swapped(
        &self,
        held: Option<&Certificate>,
        listener: &str,
        now: SystemTime,
        counts: &Counts,
    ) {
        if let (Some(before), Some(held)) = (&self.in_force, held)
            && !held.is_same(before)
        {
            self.say_replaced(held, listener, now, counts);
        }
    }

    fn say_replaced(
        &self,
        certificate: &Certificate,
        listener: &str,
        now: SystemTime,
        counts: &Counts,
    ) {
        counts.replaced.fetch_add(1, Ordering::Relaxed);
        let until = Rfc3339::seconds(certificate.validity().not_after);
        let names = certificate.names().join(" ");
        tracing::info!(listener, names, %until, "certificate replaced");
        let text = format!("listener {listener}: {names}, valid until {until}");
        counts.tell(Kind::CertificateLoaded, &self.files.cert, text);
        for warning in certificate.warnings(now) {
            tracing::warn!(listener, "{warning}");
        }
    }

    fn say_nearness(
        &mut self,
        certificate: &Certificate,
        listener: &str,
        now: SystemTime,
        counts: &Counts,
    ) {
        let validity = certificate.validity();
        let is = nearness(validity, now);
        let was = self.said.filter(|(end, _)| *end == validity.not_after);
        if is > was.map_or(Nearness::Far, |(_, said)| said) {
            let until = Rfc3339::seconds(validity.not_after);
            let file = self.files.cert.display();
            let text = format!("listener {listener}: valid until {until}");
            counts.tell(Kind::CertificateExpiring, &self.files.cert, text);
            match is {
                Nearness::Over => tracing::error!(listener, "{file}: expired on {until}"),
                _ => tracing::warn!(
                    listener,
                    "{file}: expires on {until}, and no other has come yet"
                ),
            }
        }
        self.said = Some((validity.not_after, is));
    }
}

#[cfg(test)]
mod tests;
