//! The commands that ask and tell a running instance.
