//! NGINX as a backend.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::support::server::{Folder, Process};
use crate::support::wait_until;

/// NGINX with this in its only server, which listens at `address`.
pub fn nginx(folder: &Folder, address: SocketAddr, server: &str) -> Process {
    let at = folder.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .collect();
    let file = folder.write(
        "nginx.conf",
        &format!(
            "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log stderr warn;\n\
             events {{}}\nhttp {{\naccess_log off;\n{temporary}server {{\n{server}\n}}\n}}\n"
        ),
    );
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file).arg("-p").arg(folder.path());
    let mut process = Process::spawn(command.stdin(Stdio::null()));
    wait_until("NGINX listens", || {
        assert!(
            process.is_running(),
            "NGINX has ended: {:#?}",
            process.log()
        );
        TcpStream::connect(address).is_ok()
    });
    process
}
