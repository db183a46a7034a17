//! The configuration is read again while everything runs: what changes, what stays, and what is left
//! as it was when something is wrong.

#[path = "reload/changes.rs"]
mod changes;
#[path = "support/frames.rs"]
#[allow(dead_code, reason = "a part of it is needed here")]
mod frames;
#[path = "support/hpack.rs"]
#[allow(dead_code, reason = "a part of it is needed here")]
mod hpack;
#[path = "reload/load.rs"]
mod load;
#[path = "reload/stays.rs"]
mod stays;
mod support;

use std::net::SocketAddr;
use std::path::PathBuf;

use support::server::{Folder, Server};

/// A configuration in a file, and the server that was started with it.
pub struct Site {
    /// For its files.
    pub folder: Folder,
    /// The configuration.
    pub file: PathBuf,
    /// The server.
    pub server: Server,
}

impl Site {
    /// Starts a server with this configuration.
    pub fn start(toml: &str) -> Site {
        let folder = Folder::new();
        let file = folder.write("evenkeel.toml", toml);
        Site {
            server: Server::from_file(&file),
            folder,
            file,
        }
    }

    /// Writes the file anew and has it read: the error, if it was not taken.
    pub fn reload(&mut self, toml: &str) -> Result<(), String> {
        std::fs::write(&self.file, toml).expect("the folder can be written");
        match self.server.reload().error {
            None => Ok(()),
            Some(error) => Err(error.to_string()),
        }
    }

    /// The value of a series on the metrics page.
    pub fn metric(&self, series: &str) -> Option<f64> {
        self.server.metric(series)
    }
}

/// A plain listener of that name.
pub fn listener(name: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n")
}

/// A service of that name with one backend, at the path of that name.
pub fn service(name: &str, backend: SocketAddr) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\ndiscover = {{ static = [\"{backend}\"] }}\n\
         [[route]]\npath = \"/{name}\"\nservice = \"{name}\"\n"
    )
}
