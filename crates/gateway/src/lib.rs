//! The only way out of a sandbox: model proxy, grants, recordings and spending.
