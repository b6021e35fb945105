//! The durable truth: queues, leases, fencing, events, budgets and blobs.
