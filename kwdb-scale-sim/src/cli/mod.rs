//! The `kwbase` command line over a [`Cluster`](crate::model::Cluster).
