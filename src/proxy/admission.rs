//! Does a listener, or a route, take a client on? Asked before anything is done for it.

use std::net::IpAddr;

use super::failure::Cause;
use super::peer::Peer;
use crate::config::{Access, Config};
use crate::http::headers::Fields;

/// Refuses a request that came with these fields from `peer`, unless its client is admitted. Behind
/// a trusted proxy the client counts, not the proxy.
pub(super) fn of_request(
    access: Option<&Access>,
    peer: &Peer,
    fields: &Fields,
    config: &Config,
) -> Result<(), Cause> {
    judge(access, peer, || peer.client(fields, config))
}

/// The same for a connection that is passed on as it is.
pub(super) fn of_connection(access: Option<&Access>, peer: &Peer) -> Result<(), Cause> {
    judge(access, peer, || peer.address.ip())
}

fn judge(
    access: Option<&Access>,
    peer: &Peer,
    client: impl FnOnce() -> IpAddr,
) -> Result<(), Cause> {
    let Some(access) = access else {
        return Ok(());
    };
    let client = (!peer.is_unknown).then(client);
    match access.admits(client) {
        true => Ok(()),
        false => Err(Cause::Denied),
    }
}
