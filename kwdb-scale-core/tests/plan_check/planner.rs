//! Plans of the planner.
