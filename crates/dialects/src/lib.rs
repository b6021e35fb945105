//! The model protocols as pure parsers, meters and translators.
