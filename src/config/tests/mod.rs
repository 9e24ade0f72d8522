//! The configuration as a whole: a folder, variables and flags go in; a configuration or faults come out.

use std::fs;

use perene_policy::Class;
use tempfile::TempDir;

use super::*;
use crate::provider::oauth2::ClientAuth;

mod faults;
mod precedence;
mod secrets;
mod sources;

/// Every secret in these tests holds this word; no error and no `Debug` may.
const CANARY: &str = "hunter2";

struct World {
    folder: TempDir,
    env: Environment,
    flags: Overrides,
}

impl World {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), env: Environment::new(), flags: Overrides::default() }
    }

    fn file(self, text: &str) -> Self {
        self.named("perene.toml", text)
    }

    fn named(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.flags, &self.env, self.folder.path())
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The faults, the test's folder cut out of them.
    fn faults(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let error = self.load().expect_err("a fault");
        assert!(!error.to_string().contains(CANARY), "{error}");
        for line in error.lines() {
            assert!(!line.contains('\n'), "{line:?}");
        }
        error.lines().iter().map(|line| line.replace(&folder, "")).collect()
    }

    fn fault(&self) -> String {
        let faults = self.faults();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults[0].clone()
    }
}

fn file_fault(text: &str) -> String {
    World::new().file(text).fault()
}
