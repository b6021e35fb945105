//! Support for tests: repositories, scripted models, fault injection.
