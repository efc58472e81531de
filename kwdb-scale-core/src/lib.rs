//! What is true of a KWDB cluster, what is safe to change about its membership, and how to change it.
//!
//! KWDB is a distributed multi-model database. Its manual tells how to add and remove nodes as a page of shell steps
//! that hang for ever, report success on failure, and can destroy data when one is misread. This crate models the
//! cluster, checks a change before it is made, plans it, and carries the plan out through [`ports`] that others
//! implement (see `kwdb-scale-local`, `kwdb-scale-sql`, `kwdb-scale-rpc`, and `kwdb-scale-sim` for tests). It does no I/O of its own and
//! names no async runtime.
//!
//! # One way through
//!
//! ```text
//! observe ──► assess ──► plan ──► apply ──► verify
//! (ports)     (pure)     (pure)   (ports)   (ports)
//! ```
//!
//! ```
//! use kwdb_scale_core::execute::{End, ExecuteError, ObserveOptions, Operation, Ports, observe};
//! use kwdb_scale_core::plan::plan;
//! use kwdb_scale_core::policy::Policy;
//! use kwdb_scale_core::request::{self, Inventory, NodeRef, Options, Request};
//! use kwdb_scale_core::topology::NodeId;
//!
//! /// Takes node 4 out of the cluster: everything is moved off it, it is stopped, and the rest is proven healthy.
//! async fn remove_node_4(ports: Ports, inventory: Inventory) -> Result<(), Box<dyn std::error::Error>> {
//!     let request = Request {
//!         operation: request::Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(4))] },
//!         inventory: inventory.clone(),
//!         options: Options::default(),
//!     };
//!     let options = ObserveOptions {
//!         request: Some(request.clone()),
//!         inventory,
//!         ..ObserveOptions::default()
//!     };
//!     let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await?;
//!     let plan = plan(&observation, &request, &Policy::default())?; // or a refusal with reasons and cures
//!     println!("{plan}");
//!     match Operation::begin(plan, ports).await?.run().await {
//!         End::Done(proof) => proof.iter().for_each(|line| println!("{line}")),
//!         End::Stopped(stopped) => println!("{}: {:?}", stopped.message, stopped.next),
//!         End::Undone(_) => {}
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Map
//!
//! | module | what is in it |
//! |---|---|
//! | [`topology`] | identities, addresses, localities, start modes, the class of a node |
//! | [`rows`], [`statement`] | the closed set of questions, their SQL, and the typed rows of the answers |
//! | [`fact`], [`observation`], [`zone`], [`health`] | facts made of rows, each known or visibly unknown |
//! | [`host_facts`] | what one look at a host tells |
//! | [`request`], [`policy`] | what the caller wants; thresholds and waits |
//! | [`safety`] | two questions with evidence: may it be stopped, may its disks be wiped? |
//! | [`assess`] | the checks: findings with severity, evidence and cure |
//! | [`mod@plan`] | the planner, plans, their fingerprint, and a checker that trusts no planner |
//! | [`execute`] | the pure machine, its journal and its driver |
//! | [`kwbase`] | the `kwbase` command line as an implementation of the ports |
//! | [`owner`] | what starts and stops a node's process: nobody, a unit, a container |
//! | [`deploy`] | KWDB's `deploy.sh` as an implementation of the ports |
//! | [`version`] | what each KWDB release can do |
//! | [`certificate`] | what an X.509 certificate says: issuer, names, expiry, fingerprint |
//! | [`certs`] | certificates for a host that joins: issued or carried over, and installed |
//! | [`canonical`], [`schema`] | the JSON forms: same value, same bytes; who may read what |
//! | [`ports`] | the traits that the outside implements |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `mock` | `mockall` mocks of every port |

pub mod assess;
pub mod canonical;
pub mod certificate;
pub mod certs;
pub mod deploy;
pub mod execute;
pub mod fact;
pub mod health;
pub mod host_facts;
pub mod kwbase;
pub mod observation;
pub mod owner;
pub mod plan;
pub mod policy;
pub mod ports;
pub mod request;
pub mod rows;
pub mod safety;
pub mod schema;
pub mod secret;
pub mod statement;
pub mod topology;
pub mod version;
pub mod zone;

/// The crate of the times in this API ([`ports::Clock`], [`rows`]): implement ports with this very version.
pub use jiff;
