//! Laid out; see the modules as they land.
