//! Ids, entities, state machines, budgets, scopes, events, plans and policy: pure functions over plain data.
