//! Providers: whoever issues tokens, behind one trait.
pub mod sandbox;
