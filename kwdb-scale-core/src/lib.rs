//! Topology, safety checks, plans and their execution for scaling KWDB clusters.

pub mod execute;
pub mod fact;
pub mod ports;
pub mod rows;
pub mod secret;
pub mod topology;
pub mod version;
