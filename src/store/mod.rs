//! Stores: PostgreSQL and SQLite behind one contract.
