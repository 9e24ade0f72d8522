//! The simulated Meta that ships with Perene.
