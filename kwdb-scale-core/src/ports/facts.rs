//! Where facts of the cluster come from.

use std::fmt::Debug;

use async_trait::async_trait;

use super::PortError;
use crate::rows::{Answer, Query};
use crate::topology::Address;

/// Delivers typed rows of the closed set of [`Query`]s.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait FactSource: Debug + Send + Sync {
    /// The SQL addresses configured as seeds, in order of preference. Any other SQL address of the cluster may
    /// also be given to [`fetch`](Self::fetch).
    fn seeds(&self) -> Vec<Address>;

    /// Asks one question through the node at the SQL address `gateway`, and only through that one.
    ///
    /// Only reads; may be repeated and dropped at any time. Ends by the implementation's own deadline with
    /// [`Deadline`](super::PortErrorKind::Deadline).
    async fn fetch(&self, gateway: &Address, query: &Query) -> Result<Answer, PortError>;
}
