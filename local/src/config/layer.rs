//! A layer of the configuration, as figment takes it.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// Values of one origin. Each default, flag and variable is an origin of its own; the file is one.
pub(super) struct Layer {
    pub(super) metadata: Metadata,
    pub(super) values: Dict,
}

impl Layer {
    pub(super) fn of(key: &str, value: impl Into<Value>, origin: String) -> Self {
        Self { metadata: Metadata::named(origin), values: Dict::from([(key.to_owned(), value.into())]) }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
