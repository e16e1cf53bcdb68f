//! Starts the agent as a program, with a contract in a folder, and reads what it says.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing that is waited for takes longer.
pub const SOON: Duration = Duration::from_secs(60);

/// An agent with its files. It ends with the test.
pub struct Agent {
    child: Child,
    pub folder: PathBuf,
}

impl Agent {
    /// Of a verb (`routes`, `steward`, …) with its contract.
    pub fn start(folder: &Path, verb: &str, contract: &str) -> Self {
        let file = folder.join(format!("{verb}.json"));
        fs::write(&file, contract).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kscratch-agent"))
            .arg(verb)
            .arg(file)
            .stdout(File::create(folder.join("log")).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, folder: folder.to_owned() }
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        let end = Instant::now() + SOON;
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "the agent does not say {text:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
