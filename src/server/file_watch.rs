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

use super::Order;
use crate::io::folders::Folders;
use crate::tls::contents::Contents;

/// Time between two looks of which nobody has said that there is something to see.
const POLL: Duration = Duration::from_secs(10);

/// From the last thing that happens until the look: who writes in pieces is done by then, as a rule.
const SETTLING: Duration = Duration::from_millis(100);

/// Starts to watch `file`. It ends with whoever takes the orders.
pub fn watch(file: PathBuf, orders: UnboundedSender<Order>) -> anyhow::Result<()> {
    let mut folders = Folders::new().context("cannot watch the configuration file")?;
    // From here on nothing that happens is missed.
    folders.watch([file.as_path()]);
    let mut known = Contents::of([file.as_path()]);
    let thread = std::thread::Builder::new().name("configuration".to_owned());
    let watching = move || {
        while !orders.is_closed() {
            if happens(&folders, POLL) {
                folders.take();
                while happens(&folders, SETTLING) {
                    folders.take();
                }
            }
            folders.watch([file.as_path()]);
            let now = Contents::of([file.as_path()]);
            if now != known {
                known = now;
                // Nobody takes it any more: the end is near.
                let _ = orders.send(Order::Reload(None));
            }
        }
    };
    thread
        .spawn(watching)
        .context("cannot watch the configuration file")?;
    Ok(())
}

/// Does something happen within that time?
fn happens(folders: &Folders, within: Duration) -> bool {
    let within = Timespec::try_from(within).ok();
    let mut ends = [PollFd::new(folders, PollFlags::IN)];
    // A signal that came to this thread is as good as something that turns out to be nothing.
    poll(&mut ends, within.as_ref()).is_ok_and(|ready| ready > 0)
}
