//! What the tests of the service share: the program run in a folder of its own, as for the tests of the command line, and a
//! service to which connections of every kind are made.

#[path = "../../../../cli/tests/support/mod.rs"]
pub mod program;

pub mod http2;
pub mod server;
pub mod wire;
