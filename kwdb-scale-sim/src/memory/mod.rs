//! The ports of core over a [`Cluster`](crate::model::Cluster), on its virtual clock.
