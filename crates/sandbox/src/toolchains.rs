//! Which toolchains of this machine a repository needs, and the mounts that bring them inside.
