//! Which labels a series may have, whose it is, and how many series there may be (EB 5.1 to 5.4).
//!
//! Three files, three ideas: [`layers`] puts labels of the operator, of the service and of a request together; [`tenant`] reads a
//! name from a header; [`cardinality`] admits series up to a number and folds all others into overflow series.

pub mod cardinality;
pub mod layers;
pub mod tenant;

pub use cardinality::{Admission, Cardinality, Limits};
pub use layers::{Layer, Level, merge};
pub use tenant::Tenants;
