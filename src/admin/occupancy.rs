//! How many ask at the same time, and how many may: connections and streams of the control thread.

use std::sync::Arc;

use crate::telemetry::metrics::{BoundSample, Tally};

/// Connections to the probe listener at a time; one more is closed at once.
pub const PROBES: usize = 64;

/// Connections at a time by one way in to the control listener; one more is closed at once.
pub const CONTROLS: usize = 64;

/// Streams of events that are open at a time: half of the connections, so that commands come through.
pub const STREAMS: usize = 32;

/// Who is there.
#[derive(Debug, Default)]
pub struct Occupancy {
    /// Connections to the probe listener.
    pub probes: Tally,
    /// Connections to the control listener over TCP.
    pub controls: Tally,
    /// Connections by its socket.
    pub controls_by_socket: Tally,
    /// Streams of events.
    pub event_streams: Arc<Tally>,
}

impl Occupancy {
    /// For a scrape.
    pub fn bounds(&self) -> [BoundSample; 4] {
        let by_socket = "control_socket_connections";
        [
            self.probes.sample("probe_connections", PROBES),
            self.controls.sample("control_connections", CONTROLS),
            self.controls_by_socket.sample(by_socket, CONTROLS),
            self.event_streams.sample("event_streams", STREAMS),
        ]
    }
}
