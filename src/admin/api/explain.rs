//! `explain`: where a request would go, and why.

use hyper::StatusCode;

use super::{Desk, Query, Refusal, Reply};

impl Desk {
    pub(super) fn explain(&self, query: &Query) -> Result<Reply, Refusal> {
        if query.get("url").is_none() {
            return Err(Refusal::bad(
                "say of which request: ?url=https://shop.example/",
            ));
        }
        Err(missing())
    }

    pub(super) fn samples(&self) -> Result<Reply, Refusal> {
        Err(missing())
    }
}

fn missing() -> Refusal {
    let status = StatusCode::NOT_IMPLEMENTED;
    Refusal::new(status, "not_implemented", "explain is not in this version")
}
