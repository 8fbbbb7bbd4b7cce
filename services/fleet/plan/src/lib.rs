//! Plans how the machines of a fleet share limits: credits, lease requests and their sizes.
//!
//! Each machine of a fleet leases units of each window from a store, and puts them as *credits*
//! into words that its processes share. Requests spend credits from that memory, and only the
//! machine's agent talks to the store. This crate holds the decisions, without the agent: no `std`,
//! no allocation, no clock, no I/O and no `unsafe`.
//!
//! | term | meaning |
//! |---|---|
//! | fleet | machines that share limits through one store |
//! | agent | the process of a machine that leases units |
//! | credits | the units of each window that a machine may still spend |
//! | holding | the units that the store counts for a machine: spent, or credits |
//! | lease request | states what a machine holds and what it wants to hold |
//! | exhausted | the store had no unit of a window left in its last reply |
//! | unreserved | admitted without credits, and not in the holding yet |
//! | recall | the store's message that a window runs out and idle units are needed |
//! | void | of a window that has passed; never spent |
//!
//! Each tally of a gate, that of a key, of its team, of a group or of its month, is leased by
//! itself.
//!
//! ```
//! use keytally_core::Policy;
//! use keytally_core::sync::AtomicU64;
//! use keytally_fleet_plan::credit::CreditLayout;
//! use keytally_fleet_plan::lease::Planner;
//! use keytally_fleet_plan::request::{Reply, WindowReply};
//! use keytally_fleet_plan::words::{Spending, TallyWords, spend, want};
//!
//! let policy: Policy = "100/minute".parse()?;
//! let layout = CreditLayout::new(policy.layout(), &policy.limits())?;
//! let memory = [const { AtomicU64::new(0) }; 5];
//! let words = TallyWords::from(&memory);
//! let mut planner = Planner::new(7);
//! let now_ms = 1_700_000_000_000;
//!
//! // A request finds no credits, and wakes the agent.
//! assert_eq!(spend(&layout, &words, now_ms, 1), Spending::NoCredits);
//! want(&words, 1);
//! planner.wanted();
//!
//! // The agent sends the lease request, and applies the store's reply.
//! let request = planner.next(&layout, &words, now_ms).unwrap();
//! let granted = request.windows()[0].want;
//! let mut reply = Reply::default();
//! reply.windows[0] = WindowReply { held: granted, left: 100 - granted, machines: 1 };
//! planner.replied(&layout, &words, now_ms + 1, &request, &reply);
//! assert!(matches!(spend(&layout, &words, now_ms + 1, 1), Spending::Spent { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod clock;
pub mod credit;
pub mod fleet_key;
pub mod flow;
pub mod holding;
pub mod layout;
pub mod lease;
pub mod meta;
pub mod on_loss;
pub mod request;
pub mod seal;
pub mod words;
