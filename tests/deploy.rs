//! What people copy from `deploy/`: that it loads, and that what is said in two places is the same.

#[path = "deploy/kubernetes.rs"]
mod kubernetes;
mod support;
