//! `explain`: where a request would go, and why; and a few that came.

use super::{Desk, Query, Refusal, Reply, json};
use crate::admin::explain::answer::Samples;
use crate::admin::explain::question::Asked;

impl Desk {
    pub(super) async fn explain(&self, query: &Query) -> Result<Reply, Refusal> {
        let url = query
            .get("url")
            .ok_or_else(|| Refusal::bad("say of which request: ?url=https://shop.example/"))?;
        let text = |name: &str| query.get(name).map(str::to_owned);
        let asked = Asked {
            method: text("method").unwrap_or_else(|| "GET".to_owned()),
            url: url.to_owned(),
            headers: query.all("header").map(str::to_owned).collect(),
            client: text("client"),
            listener: text("listener"),
        };
        let explained = self.state.explain(&asked).await;
        json(&explained.map_err(|bad| Refusal::bad(bad.to_string()))?)
    }

    pub(super) fn samples(&self) -> Result<Reply, Refusal> {
        let samples = self.state.sampled();
        json(&Samples { samples })
    }
}
