//! From a change through the merge queue to the integration branch.
