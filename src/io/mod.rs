//! Bytes in and out: transports, buffers that an idle connection does not hold, deadlines that
//! cost nothing per operation, the two-way copy of a tunnel, and what goes in front of everything
//! (the PROXY protocol); word of files that change, and folders of our own.
//!
//! Nothing here knows HTTP.

pub mod adapter;
pub mod buffer;
pub mod deadline;
pub mod duplex;
pub mod files;
pub mod folders;
pub mod pace;
pub mod pipes;
pub mod private;
pub mod proxy_header;
pub mod relay;
pub mod reserve;
pub mod spares;
pub mod tls;
pub mod transport;
