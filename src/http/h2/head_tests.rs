//! Heads of HTTP/2, as HTTP/1.1 has them.
