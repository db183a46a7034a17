//! `config`: what is in effect, as it was written.

use super::Desk;
use crate::admin::model::{Configuration, InEffect};

impl Desk {
    pub(super) fn config(&self) -> Configuration {
        let InEffect {
            file,
            generation,
            loaded_at,
            last_reload,
        } = self.in_effect();
        Configuration {
            file,
            generation,
            loaded_at,
            last_reload,
            written: self.shared().config.written.tree.clone(),
        }
    }
}
