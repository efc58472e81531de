//! What the programs of this package share: the `cluster.toml` of an operator, the ports made of it, the commands of
//! `kwscale`, and labs of local processes to try them on.
//!
//! | module | for |
//! |---|---|
//! | [`config`] | `cluster.toml`: reading and checking it |
//! | [`connect`] | the ports of a cluster that the file describes |
//! | [`control`] | over the admin RPC or by the command line |
//! | [`lab`] | clusters of real processes on this machine |
//! | [`cli`] | the command line of `kwscale` |
//! | [`report`], [`progress`] | a cluster as text, a running operation as text |
//! | [`failure`] | exit codes |
//! | [`ui`] | results on stdout, talk on stderr |

pub mod cli;
mod commands;
pub mod config;
pub mod connect;
pub mod control;
pub mod failure;
pub mod lab;
pub mod progress;
pub mod report;
pub mod transport;
pub mod ui;
