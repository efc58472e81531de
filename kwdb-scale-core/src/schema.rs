//! Reading JSON that names its schema: another major version is refused, fields that are not known are passed over.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a JSON text cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not JSON, or not of the right shape.
    #[error("this is no {schema}: {source}")]
    Shape {
        /// The schema that is read here.
        schema: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Written by another major version.
    #[error("the schema is '{found}', this library reads '{reads}': use a kwdb-scale of that version")]
    Schema {
        /// Schema id found.
        found: String,
        /// Schema id that is read here.
        reads: &'static str,
    },
}

/// Reads a value whose text names `schema`.
pub(crate) fn read<T: DeserializeOwned>(text: &str, schema: &'static str) -> Result<T, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let shape = |source| ReadError::Shape { schema, source };
    let head: Head = serde_json::from_str(text).map_err(shape)?;
    if head.schema != schema {
        return Err(ReadError::Schema { found: head.schema, reads: schema });
    }
    serde_json::from_str(text).map_err(shape)
}
