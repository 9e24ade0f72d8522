//! Values that only SQLite can hold.
