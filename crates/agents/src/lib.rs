//! Agent profiles and adapters to one normalised event stream.
