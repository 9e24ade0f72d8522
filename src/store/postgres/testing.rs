//! A throw-away PostgreSQL for the tests: one cluster for the process, one database for each test.

