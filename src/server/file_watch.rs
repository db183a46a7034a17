//! A configuration file that is looked at while everything runs (`run --watch`): when it holds something
//! else, it is reloaded.
//!
//! A thread of its own waits for what the kernel says of the file's folder, and looks every [`POLL`] in
//! any case. What counts is what the file holds: Kubernetes swaps a link two folders away, editors
//! write another file and rename it. Whether the new contents are any good is the reload's matter.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::Order;
use crate::io::folders::Folders;
use crate::tls::contents::Contents;

/// Time between two looks of which nobody has said that there is something to see.
const POLL: Duration = Duration::from_secs(10);

/// From the last thing that happens until the look: who writes in pieces is done by then, as a rule.
const SETTLING: Duration = Duration::from_millis(100);

/// At the latest then it is looked, however much happens in the folder.
const SETTLED: Duration = Duration::from_secs(1);

/// A file, and what was in it.
#[derive(Debug)]
pub struct Watched {
    file: PathBuf,
    known: Contents,
}

impl Watched {
    /// A file as it is now. To be called before it is read, so that no change is missed in between.
    pub fn new(file: PathBuf) -> Watched {
        let known = Contents::of([file.as_path()]);
        Watched { file, known }
    }

    /// Looks at it in a thread that ends with whoever takes the orders. An error: there is no thread.
    pub(super) fn follow(self, orders: UnboundedSender<Order>) -> anyhow::Result<()> {
        let Watched { file, mut known } = self;
        let mut folders = Folders::new()
            .inspect_err(|error| {
                let every = POLL.as_secs();
                tracing::warn!(%error, "the configuration file is looked at every {every} s only");
            })
            .ok();
        let watching = move || {
            while !orders.is_closed() {
                // First: what happens from here on is heard of, and what happened before is looked at.
                if let Some(folders) = &mut folders {
                    folders.watch([file.as_path()]);
                }
                let now = Contents::of([file.as_path()]);
                if now != known {
                    known = now;
                    // Nobody takes it any more: the end is near.
                    let _ = orders.send(Order::Reload(None));
                }
                match &mut folders {
                    Some(folders) => wait(folders),
                    None => std::thread::park_timeout(POLL),
                }
            }
        };
        std::thread::Builder::new()
            .name("configuration".to_owned())
            .spawn(watching)
            .context("cannot watch the configuration file")?;
        Ok(())
    }
}

/// Until it is time to look: something has happened and is over, or [`POLL`] has passed.
fn wait(folders: &mut Folders) {
    if !happens(folders, POLL) {
        return;
    }
    let begun = Instant::now();
    folders.take();
    while begun.elapsed() < SETTLED && happens(folders, SETTLING) {
        folders.take();
    }
}

/// Does something happen within that time?
fn happens(folders: &Folders, within: Duration) -> bool {
    let within = Timespec::try_from(within).ok();
    let mut ends = [PollFd::new(folders, PollFlags::IN)];
    // A signal that came to this thread is as good as something that turns out to be nothing.
    poll(&mut ends, within.as_ref()).is_ok_and(|ready| ready > 0)
}
