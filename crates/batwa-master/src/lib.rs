//! Batwa's master. `new -> bind -> run`.
