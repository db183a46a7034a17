//! The zone on disk, so that a restart of its server does not lose it.
//!
//! One file, written beside and renamed, so that it is always whole; in the form of a zone file
//! (RFC 1035 section 5.1) with the lease as a comment. An update is answered when it is in the
//! file (RFC 2136 section 3.5). Leases begin anew when the file is loaded: nobody could renew them
//! while there was no server.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::lease::Lease;
use super::records::{Entry, Records, octets};
use super::zone::Zone;

/// Where the zone is kept.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    wanted: Notify,
    /// The change up to which everything is on disk.
    written: watch::Sender<u64>,
}

/// Why a stored zone was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else. It is left as it is.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Store {
    pub(super) fn new(path: PathBuf) -> Store {
        Store {
            path,
            wanted: Notify::new(),
            written: watch::Sender::new(0),
        }
    }

    /// Loads what is stored into `zone`.
    pub(super) fn load(
        &self,
        zone: &Zone,
        max_lease: Duration,
        now: Instant,
    ) -> Result<Stored, StoreError> {
        let failed = |source| StoreError::Io {
            path: self.path.clone(),
            source,
        };
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => file
                .take(LARGEST)
                .read_to_string(&mut text)
                .map_err(failed)?,
            // Better to learn now that it cannot be written than with the first registration.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                zone.set_recovering(true);
                write(&self.path, &to_text(&zone.read(), max_lease)).map_err(failed)?;
                return Ok(Stored::default());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut records = zone.write();
        read(&mut records, &text, now).map_err(|(line, problem)| StoreError::Content {
            path: self.path.clone(),
            line,
            problem,
        })
    }

    /// Says that the zone has changed.
    pub(super) fn write_later(&self) {
        self.wanted.notify_one();
    }

    /// Waits until all changes up to `generation` are written; false: that takes too long.
    pub(super) async fn durable(&self, generation: u64) -> bool {
        let mut written = self.written.subscribe();
        // What is not stored, a synth's record, counts as a change too, and nobody has asked for
        // its sake that the file be written.
        if *written.borrow_and_update() < generation {
            self.write_later();
        }
        let done = written.wait_for(|written| *written >= generation);
        matches!(timeout(PATIENCE, done).await, Ok(Ok(_)))
    }

    /// Writes whenever something changed; what changes meanwhile goes into the next file. Never
    /// returns.
    pub(super) async fn run(&self, zone: &Zone, max_lease: Duration) {
        let mut failing = false;
        loop {
            self.wanted.notified().await;
            let (text, generation) = {
                let records = zone.read();
                (to_text(&records, max_lease), records.generation)
            };
            let path = self.path.clone();
            let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
            match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                Ok(()) => {
                    failing = false;
                    self.written.send_replace(generation);
                    // What comes in a moment goes into one file; its text takes a while to make.
                    sleep(GAP).await;
                }
                Err(error) => {
                    if !failing {
                        let path = self.path.display();
                        tracing::error!(%error, %path, "dns: the zone cannot be written");
                    }
                    failing = true;
                    sleep(RETRY).await;
                    self.wanted.notify_one();
                }
            }
        }
    }
}

/// Whoever looks sees the old file or the new one; after a crash too.
fn write(path: &Path, text: &str) -> io::Result<()> {
    // Appended, so that the files of `svc.test` and `svc.prod` are not the same.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn to_text(records: &Records, max_lease: Duration) -> String {
    let mut text = format!("{HEADER}\n$ORIGIN {}\n", plain(&records.origin));
    let _ = writeln!(text, "; serial {}", records.serial);
    let _ = writeln!(text, "; max_lease {}", max_lease.as_secs());
    if records.recovering {
        let _ = writeln!(text, "{RECOVERING}");
    }
    for (owner, sets) in records.iter().filter(|(o, _)| !records.fixed.contains(*o)) {
        let owner = plain(owner);
        for (kind, set) in sets {
            for entry in set.entries.values() {
                let _ = write!(text, "{owner} {} IN {kind} {}", set.ttl, data(&entry.data));
                if let Some(lease) = entry.lease {
                    let _ = write!(text, " ; lease {}", lease.granted.as_secs());
                }
                text.push('\n');
            }
        }
    }
    text + END + "\n"
}

/// Its octets between dots. hickory's own text shows punycode as what it stands for and escapes
/// some letters, which it then does not read back; `update.rs` takes only names that need neither.
fn plain(name: &Name) -> String {
    let mut text = String::new();
    for label in name {
        text.push_str(&String::from_utf8_lossy(label));
        text.push('.');
    }
    match text.is_empty() {
        true => ".".to_owned(),
        false => text,
    }
}

/// One record's data; of a TXT record in base64, which no character of it can leave.
fn data(data: &RData) -> String {
    match data {
        RData::A(ip) => ip.to_string(),
        RData::AAAA(ip) => ip.to_string(),
        RData::SRV(srv) => format!(
            "{} {} {} {}",
            srv.priority,
            srv.weight,
            srv.port,
            plain(&srv.target)
        ),
        RData::CNAME(alias) => plain(&alias.0),
        RData::PTR(pointer) => plain(&pointer.0),
        RData::TXT(txt) => {
            let strings = txt.txt_data.iter();
            let strings: Vec<_> = strings.map(|octets| BASE64.encode(octets) + ".").collect();
            strings.join(" ")
        }
        // `update.rs` takes none of these.
        other => other.to_string(),
    }
}

/// What a file told.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// It holds all that was registered; else there is none, or it was written before everybody
    /// could register again.
    pub(super) whole: bool,
    /// The longest lease that was granted then.
    pub(super) max_lease: Duration,
}

/// What `to_text` wrote; the line at which it turned out to be something else.
fn read(records: &mut Records, text: &str, now: Instant) -> Result<Stored, (usize, String)> {
    let mut lines = text.lines().enumerate().peekable();
    if lines.next().is_none_or(|(_, line)| line != HEADER) {
        return Err((1, format!("not a stored zone: expected `{HEADER}`")));
    }
    let mut stored = Stored {
        whole: true,
        max_lease: Duration::ZERO,
    };
    while let Some((nth, line)) = lines.next() {
        if line == END && text.ends_with('\n') && lines.peek().is_none() {
            return Ok(stored);
        }
        read_line(records, &mut stored, line, now).map_err(|problem| (nth + 1, problem))?;
    }
    let problem = "the end is missing; without this file the zone begins empty".to_owned();
    Err((text.lines().count(), problem))
}

fn read_line(
    records: &mut Records,
    stored: &mut Stored,
    line: &str,
    now: Instant,
) -> Result<(), String> {
    if let Some(origin) = line.strip_prefix("$ORIGIN ") {
        return match name(origin)? == records.origin {
            true => Ok(()),
            false => Err(format!("this is the zone {origin}, not {}", records.origin)),
        };
    }
    if let Some(serial) = line.strip_prefix("; serial ") {
        records.serial = serial.parse().map_err(|_| "no serial".to_owned())?;
        return Ok(());
    }
    if let Some(seconds) = line.strip_prefix("; max_lease ") {
        let seconds = seconds.parse().map_err(|_| "no lease".to_owned())?;
        stored.max_lease = Duration::from_secs(seconds);
        return Ok(());
    }
    if line == RECOVERING {
        stored.whole = false;
        return Ok(());
    }
    let (record, lease) = match line.split_once(" ; lease ") {
        Some((record, lease)) => (record, Some(lease)),
        None => (line, None),
    };
    let lease = lease.map(|seconds| {
        let granted = seconds.parse().map(Duration::from_secs);
        // As it was granted, even if less would be now: its holder renews at the pace of that.
        granted.map(|granted| Lease::new(granted, now))
    });
    let lease = lease.transpose().map_err(|_| "no lease".to_owned())?;
    let words: Vec<&str> = record.split(' ').collect();
    let [owner, ttl, "IN", kind, data @ ..] = &words[..] else {
        return Err("not a record".to_owned());
    };
    let owner = name(owner)?;
    if !records.origin.zone_of(&owner) || records.fixed.contains(&owner) {
        // The configuration has changed since.
        return Ok(());
    }
    let ttl = ttl.parse().map_err(|_| format!("no TTL: {ttl}"))?;
    let kind: RecordType = kind.parse().map_err(|_| format!("no type: {kind}"))?;
    let data = parse(kind, data).ok_or_else(|| format!("no {kind} record"))?;
    records.insert(&owner, octets(&data), Entry { data, lease });
    records.set_ttl(&owner, kind, ttl);
    Ok(())
}

fn parse(kind: RecordType, words: &[&str]) -> Option<RData> {
    match (kind, words) {
        (RecordType::A, [ip]) => Some(RData::A(A(ip.parse().ok()?))),
        (RecordType::AAAA, [ip]) => match ip.parse().ok()? {
            IpAddr::V6(ip) => Some(RData::AAAA(AAAA(ip))),
            IpAddr::V4(_) => None,
        },
        (RecordType::SRV, [priority, weight, port, target]) => Some(RData::SRV(SRV::new(
            priority.parse().ok()?,
            weight.parse().ok()?,
            port.parse().ok()?,
            name(target).ok()?,
        ))),
        (RecordType::CNAME, [target]) => Some(RData::CNAME(CNAME(name(target).ok()?))),
        (RecordType::PTR, [target]) => Some(RData::PTR(PTR(name(target).ok()?))),
        (RecordType::TXT, strings) => {
            let decode = |text: &&str| BASE64.decode(text.strip_suffix('.')?.as_bytes()).ok();
            let strings: Vec<Vec<u8>> = strings.iter().map(decode).collect::<Option<_>>()?;
            let strings = strings.iter().map(Vec::as_slice).collect();
            Some(RData::TXT(TXT::from_bytes(strings)))
        }
        _ => None,
    }
}

fn name(text: &str) -> Result<Name, String> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).map_err(|error| format!("{text}: {error}"))
}

/// Of every stored zone; the number changes with the form.
const HEADER: &str = "; evenkeel zone 1";

/// Of every file that was written to its end.
const END: &str = "; end";

/// The server went before everybody could register again: what is stored is not all of it.
const RECOVERING: &str = "; recovering";

/// Bytes of a file that are read: 200,000 records as long as they may be.
const LARGEST: u64 = 256 << 20;

/// For a change to be on disk. Whoever sent it asks again after a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two writes.
const GAP: Duration = Duration::from_millis(50);

/// After a failed write.
const RETRY: Duration = Duration::from_secs(1);
