//! Topology, safety checks, plans and their execution for scaling KWDB clusters.

pub mod assess;
pub mod execute;
pub mod fact;
pub mod health;
pub mod observation;
pub mod policy;
pub mod ports;
pub mod request;
pub mod rows;
pub mod secret;
pub mod statement;
pub mod topology;
pub mod version;
pub mod zone;
